"""Floats in 16 bits: what of them a weight keeps, which nodes are left alone, and the graph."""
