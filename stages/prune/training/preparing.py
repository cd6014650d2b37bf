"""Training before a cut, so that what will leave hardly counts when it does: channels of little weight lose it."""

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.base.batches import Outputs
from pipeline.context import Context
from pipeline.model import TorchModel
from pipeline.task import Batch
from stages.kd.retraining import Retraining
from stages.kd.teacher import Teacher
from stages.prune.allocation.slices import by_label, slices, weighted
from stages.prune.coupling.coupled import Coupled
from stages.prune.coupling.parts import Part, known
from stages.trainer.loop import train
from stages.trainer.objective import Objective, Progress


class Preparation(Retraining):
    """How to train before the cut; what is minimized besides is the group lasso of the channels that can leave.

    Reference: G. Fang et al., "DepGraph: Towards Any Structural Pruning", 2023, arXiv:2301.12900, eq. 6 and 7, with a
    strength that rises from zero along the training.
    """

    epochs: int = Field(10, gt=0, description="passes over the training split")
    strength: float = Field(5e-4, gt=0, description="of the group lasso at the end of the training")
    growth: float = Field(4.0, ge=0, description="the least channel of a group shrinks 2 to the power of it faster")

    def prepared(
        self, teachers: Sequence[Teacher], model: TorchModel, groups: Sequence[Coupled], ctx: Context
    ) -> TorchModel:
        """The trained model, as wide as before.

        Args:
            teachers: as `open` gives them of the model that came in.
            model: where to start; not changed.
            groups: the channels that can leave.
            ctx: the data and the place.
        """
        objective = Sparse(self.objective(teachers, model, ctx), groups, self.strength, self.growth)
        return train(model, objective, self, ctx, "preparation")


class Sparse(Objective):
    """An objective and the group lasso.

    Args:
        objective: what else is minimized.
        groups: channels that can leave together.
        strength: weight of the penalty at the end; it rises in proportion to the steps that are done.
        growth: see `penalty`.
    """

    keeps_last = True

    def __init__(self, objective: Objective, groups: Sequence[Coupled], strength: float, growth: float) -> None:
        super().__init__()
        self.objective, self.groups, self.strength, self.growth = objective, groups, strength, growth
        self.views = objective.views
        self.parts: Mapping[str, Part] = {}  # in no attribute of their own, for they are not trained along

    def watch(self, student: nn.Module) -> None:
        """Remember whose weights are to shrink."""
        self.objective.watch(student)
        self.parts = known(student)  # once, not for each group at each step

    def unwatch(self) -> None:
        """Forget it."""
        self.objective.unwatch()
        self.parts = {}

    def forward(self, batch: Batch, outputs: Outputs, progress: Progress) -> Tensor:
        """The loss with the penalty."""
        loss: Tensor = self.objective(batch, outputs, progress)
        members = [member for group in self.groups for member in group.members or (group,)]
        penalties = [penalty(member, self.parts, self.growth) for member in members]
        return loss + self.strength * progress.done * torch.stack(penalties).sum()


def penalty(group: Coupled, parts: Mapping[str, Part], growth: float) -> Tensor:
    """Half the sum over a group's channels of their squared norm, those of least norm with the largest factor.

    Args:
        group: of a module.
        parts: of that, see `known`.
        growth: the factor is 2**(growth * (max - norm) / (max - min)), which no gradient goes through.
    """
    squares = torch.stack(_squares(group, parts)).sum(0)
    norms = squares.detach().sqrt()
    spread = (norms.max() - norms.min()).clamp_min(1e-12)
    factors = torch.exp2(growth * (norms.max() - norms) / spread)
    return (factors * squares).sum() / 2


def _squares(group: Coupled, parts: Mapping[str, Part]) -> list[Tensor]:
    """For each layer that gives or reads the channels the sum of the squares of its weights, by channel."""
    sums = []
    for place, labels in group.places.items():
        for weight in weighted(parts[place.name], place) if place.side in ("out", "in") else ():
            own = slices(parts[place.name], place, weight).square().sum(1)
            sums.append(by_label(own, labels.to(own.device), len(group.scores)))
    return sums
