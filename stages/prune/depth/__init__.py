"""Whole blocks of a network: which can be left out, what that changes, and leaving them out."""
