"""The data that a user brings."""
