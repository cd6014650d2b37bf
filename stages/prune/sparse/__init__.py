"""Single weights that become zero: which of them, and what their inputs say of it."""
