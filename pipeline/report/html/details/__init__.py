"""What is to unfold of a stage."""
