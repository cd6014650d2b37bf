"""`shrink init`: a starting config for a model and a task, from what is found by looking at both."""
