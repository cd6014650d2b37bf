"""Which channels of a module belong together, found and proven by values."""
