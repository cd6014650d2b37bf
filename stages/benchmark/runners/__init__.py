"""What runs in the fresh process that times a model: it imports numpy and the one runtime, and nothing else of ours."""
