"""Why there is nothing to say of a file on another CPU."""

from pipeline.errors import StageError


class UnknownError(StageError):
    """What a graph answers elsewhere is not known."""


class NoIntegersError(StageError):
    """A file has no integers, so every CPU answers alike."""
