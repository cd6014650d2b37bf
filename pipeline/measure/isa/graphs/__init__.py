"""Graphs whose products of integers are rewritten, so that every CPU answers as one does."""
