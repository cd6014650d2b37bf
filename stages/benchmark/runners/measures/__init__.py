"""What the fresh process measures of a loaded model: single inferences, many at a time, and energy."""
