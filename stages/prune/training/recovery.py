"""Training after a cut, so that what is left makes up for what is gone."""

from stages.kd.retraining import Retraining

IDLE_STEPS = "`steps` without `recovery` changes little: weights stay what they are between steps"


class Recovery(Retraining):
    """How to train what pruning left, over all steps together."""

    def check_steps(self, steps: int) -> None:
        """Raise ValueError where the epochs are fewer than the steps that they are divided among."""
        if self.epochs < steps:
            raise ValueError(f"{self.epochs} epochs of recovery cannot be divided among {steps} steps")
