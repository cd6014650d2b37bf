"""Runtimes of small devices, each in an environment of its own: a runner loads a model there, and converts it."""
