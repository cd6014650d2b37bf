"""Distillation: a small student learns from a teacher's outputs, not from labels alone."""
