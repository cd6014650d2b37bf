"""The labels, as a term."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from pipeline.errors import StageError, blame
from stages.kd.terms.term import Term, TermInputs
from stages.trainer.objective import scalar


class Labels(Term):
    """The task's loss against the labels."""

    needs_teacher: ClassVar[bool] = False

    def loss(self, inputs: TermInputs, adapters: Sequence[nn.Module]) -> Tensor:
        """The task's loss of the student's outputs."""
        with blame(StageError, "the task's loss", fix="Look at the targets' range and shape"):
            return scalar(inputs.hard_loss(inputs.outputs, inputs.batch.targets))
