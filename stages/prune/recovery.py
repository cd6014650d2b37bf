"""Training after a cut, so that what is left makes up for what is gone."""

from stages.kd.retraining import Retraining


class Recovery(Retraining):
    """How to train what pruning left, over all steps together."""
