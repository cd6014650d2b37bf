"""Training without a teacher: what makes a baseline, or the control of a distillation."""
