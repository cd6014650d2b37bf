"""From text to checked settings: YAML with its limits, and what does not fit, in words."""
