"""Weights as whole numbers of 8, 4 or 2 bits, with a scale and a zero point for each block of a row."""
