"""Tokenizers, and models whose vocabulary was made smaller."""
