"""Pruning: the same network with fewer channels."""
