"""What terms need of a teacher, and its largest probabilities, where these alone are cached."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor

from pipeline.base.batches import Inputs, Outputs
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.task import sample
from stages.kd.cache import Values
from stages.kd.losses.logits import rows
from stages.kd.losses.sparse import k_for_mass, sparsify
from stages.trainer.objective import first

SHARE_OF_DISK = 0.5  # of the free bytes that cached logits may take
SAMPLED = 256  # examples that say how many classes hold the mass, and how many rows of their logits at most
AT_ONCE = 16  # examples: whole logits over a large vocabulary take much memory


@dataclass(frozen=True)
class TeacherNeeds:
    """What the terms need of the teachers.

    Args:
        layers: whether some look inside all the time, so that caching logits saves nothing.
        mass, temperature, axis: where the largest probabilities alone are kept; axis is that of the classes.
    """

    layers: bool = False
    mass: float | None = None
    temperature: float = 1.0
    axis: int = -1


class TopClasses:
    """Computes, of a teacher's logits, the probabilities of as many classes as hold the mass in the mean over a sample.

    Single precision: half would save a quarter of the bytes, for the indices take as many.
    """

    def __init__(self, teacher: Callable[[Inputs], Outputs], needs: TeacherNeeds, mass: float, ctx: Context) -> None:
        self.teacher, self.needs = teacher, needs
        some = sample(ctx.train, SAMPLED)
        few = max(SAMPLED * AT_ONCE // len(some), 1)  # of a batch: all rows of long sequences would not fit
        generator, parts, count = torch.Generator().manual_seed(0), list[Tensor](), 0
        for batch in some.loader(AT_ONCE):
            logit_rows = rows(first(teacher(batch.inputs)), needs.axis)
            parts.append(logit_rows[torch.randperm(len(logit_rows), generator=generator)[:few].to(logit_rows.device)])
            count += len(logit_rows)
        self.k, self.classes = k_for_mass(torch.cat(parts), mass, temperature=needs.temperature), parts[0].shape[1]
        self.bytes = (8 * self.k + 4) * count // len(some)  # an example
        self.rest, self.rows = 0.0, 0

    def __call__(self, inputs: Inputs) -> Values:
        """Those of a batch, a few examples at a time."""
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(next(iter(inputs.values()))), AT_ONCE):
            logits = first(self.teacher({name: value[start : start + AT_ONCE] for name, value in inputs.items()}))
            parts.append(sparsify(logits, self.k, self.needs.temperature, axis=self.needs.axis)._asdict())
            self.rest += float(parts[-1]["rest"].double().exp().sum())
            self.rows += parts[-1]["rest"].numel()
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def expect_room(self, examples: int, folder: Path) -> None:
        """Raise StageError where so many examples would take too much of the disk."""
        needed, free = self.bytes * examples, shutil.disk_usage(folder).free
        if needed > SHARE_OF_DISK * free:
            largest = f"{self.k:,} largest of {self.classes:,}"
            fix = "Lower `mass`, free disk, or set `cache_teacher: false`"
            raise StageError(f"the teacher's {largest} classes would take {needed:,} of {free:,} free bytes", fix=fix)

    def report(self) -> dict[str, JsonValue]:
        """What is kept, over all positions, padding among them."""
        mass = 1 - self.rest / max(self.rows, 1)
        figures = {"classes_kept": self.k, "classes": self.classes, "mean_mass_kept": mass}
        return {**figures, "temperature": self.needs.temperature}
