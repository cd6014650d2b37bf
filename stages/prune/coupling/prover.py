"""Which groups of channels can leave a module: those that are the same with dead channels and without."""

from dataclasses import dataclass
from functools import reduce

import torch
from torch import nn

from pipeline.base.batches import Inputs
from pipeline.errors import StageError
from stages.prune.coupling.coupled import Coupled, Gone, merged
from stages.prune.coupling.proof import same_without


@dataclass(frozen=True)
class Prover:
    """Tries groups on a module.

    Args:
        module: one of `shaken`.
        example: a batch of its inputs.
    """

    module: nn.Module
    example: Inputs

    def proven(self, groups: list[Coupled], joint: bool = True) -> list[Coupled]:
        """Those that can leave: tried at once, then one by one, the rest by width.

        Of the rest some may only be cut together though no column reads them both, as those that are stacked.
        """
        if len(groups) > 1 and self._are_proven(groups):
            return groups
        proven_groups = [group for group in groups if self._are_proven([group])]
        rest = [group for group in groups if group not in proven_groups]
        for size in {len(group.scores) for group in rest} if joint else ():
            one = reduce(Coupled.joined, (group for group in rest if len(group.scores) == size))
            if one not in rest and self._are_proven([one]):
                proven_groups.append(one)
        return proven_groups

    def first_proven(self, trials: list[list[Coupled]]) -> list[Coupled]:
        """Of each trial the first group that can leave."""
        pending, proven_groups = trials, list[Coupled]()
        for turn in range(max(map(len, trials), default=0)):
            tried = [groups[turn] for groups in pending if turn < len(groups)]
            done = self.proven(tried, joint=False)
            proven_groups += done
            pending = [groups for groups in pending if not any(group in done for group in groups)]
        return proven_groups

    def without_sizes(self, groups: list[Coupled]) -> list[Coupled]:
        """The same heads with fewer integers: without those not needed on the example, unless named after heads."""
        for name in sorted({name for group in groups for name in group.sizes if "head" not in name}):
            fewer = [group.without_size(name) for group in groups]
            groups = fewer if self._are_proven(fewer) else groups
        return groups

    def can_leave(self, gone: Gone) -> bool:
        """Whether these channels can; not where the module does not run without them."""
        try:
            return same_without(self.module, self.example, gone)
        except StageError:
            return False

    def _are_proven(self, groups: list[Coupled]) -> bool:
        """Whether one half of their channels can leave, and the other half; they are drawn, for each group anew.

        Of groups of several parts, which shapes alone may have found, one of a set and all others can leave too.
        """
        trials: tuple[list[Gone], ...] = [], [], [], []
        generator = torch.Generator().manual_seed(0)
        for group in groups:
            order = torch.randperm(len(group.scores), generator=generator).tolist()
            half = len(order) // 2
            for trial, numbers in zip(trials, (order[:half], order[half:], order[:1], order[1:]), strict=True):
                trial.append(group.without(numbers))
        tried = trials if any(group.groups > 1 for group in groups) else trials[:2]
        return all(self.can_leave(merged(trial)) for trial in tried)
