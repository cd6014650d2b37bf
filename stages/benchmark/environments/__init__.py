"""Environments of their own, for runtimes whose packages do not fit beside ours, and the converters in them."""
