"""Losses: pure functions on tensors, a file a paper's idea; distillation and recovery both use them."""
