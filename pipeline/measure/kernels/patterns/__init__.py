"""Patterns of files that are slower than they need be, as public reports tell of them again and again.

A pattern is a function (facts, cpu) -> alarms; `known.PATTERNS` has them all.
"""
