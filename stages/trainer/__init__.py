"""The one training loop, its settings and its checkpoints."""
