"""Factors of low rank: which layers they can stand for, how they are computed, and how many ranks each keeps."""
