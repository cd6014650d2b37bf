"""A teacher with its model: its outputs on a batch of the training data, anew or from the cache."""

import copy
import json
import shutil
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from pipeline.base.batches import Inputs, Outputs
from pipeline.context import Context, HasTask
from pipeline.errors import StageError, blame
from pipeline.model import Model, TorchModel, call
from pipeline.task import Batch
from stages.kd.cache import CachedValues, fill, fitted
from stages.kd.inspection.hooks import Hook, Hooks
from stages.kd.losses.logits import positions
from stages.kd.losses.sparse import Sparse
from stages.kd.teacher_config import TeacherConfig, TeacherSettings, inputs_key
from stages.kd.terms.term import ModelOutputs
from stages.kd.top_classes import SHARE_OF_DISK, TeacherNeeds, TopClasses
from stages.trainer.objective import Progress, first, logits_first
from stages.trainer.settings import TrainingSettings, mixed_precision

MASS_FILE = "mass.json"


class Teacher:
    """One teacher with its model, on a device.

    Args:
        config: where it comes from.
        model: it.
        ctx: where to compute, and what its logits are called.
        output: the name of its logits, where there is no context yet; None for its first output.
        precision: of its arithmetic where nothing inside it is read, as Accelerate names it: no, bf16 or fp16.
    """

    def __init__(
        self,
        config: TeacherConfig,
        model: Model,
        ctx: Context | None = None,
        output: str | None = None,
        precision: str = "no",
    ) -> None:
        self.config, self.model, self.precision = config, model, precision
        self.output = ctx.output if ctx else output
        self.device = ctx.device if ctx else torch.device("cpu")
        self.module: nn.Module | None = None
        if isinstance(model, TorchModel):  # a copy: it may be moved and watched, the model stays as it was given
            self.module = copy.deepcopy(model.module).to(self.device).eval()
        self.cached: CachedValues | None = None
        self.axis, self.padded = -1, False

    def __call__(self, inputs: Inputs) -> Outputs:
        """The outputs of a batch, the logits first, without gradients, on the device."""
        inputs = self.config.adapted(inputs)
        if self.module is None:
            outputs = {name: value.to(self.device) for name, value in self.model.predict(inputs).items()}
        else:
            with torch.no_grad():
                outputs = call(self.module, {name: value.to(self.device) for name, value in inputs.items()})
        with blame(StageError, "the teacher"):
            return logits_first(outputs, self.output)

    def logits(self, inputs: Inputs) -> Outputs:
        """The same in the precision of the training, for whom no layer of it is of interest; fp32 comes out."""
        if self.precision == "no":
            return self(inputs)
        with torch.autocast(self.device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]):
            outputs = self(inputs)
        return {name: value.float() if value.is_floating_point() else value for name, value in outputs.items()}

    def look(self) -> nn.Module:
        """The module, to find layers in; one without layers for an ONNX file."""
        return self.module or nn.Identity()

    def watch(self, hooks: Sequence[Hook]) -> Hooks:
        """Read inside it from now on."""
        return Hooks(self.look(), hooks)

    def cache(self, ctx: Context, needs: TeacherNeeds, views: int | None) -> None:
        """Have its logits on the training data computed once; say what the largest alone leave out.

        Raises:
            StageError: the largest classes that hold the mass would take too much of the disk.
            Interruption: a stop was asked for; nothing is kept.
        """
        parts: dict[str, JsonValue] = {
            "views": views,
            "precision": self.precision,
            "seed": ctx.seed if views else None,
            "fingerprint": ctx.train.fingerprint,
            **inputs_key(self.config),
            "mass": needs.mass,
            "temperature": needs.temperature if needs.mass else None,
            "axis": needs.axis if needs.mass else None,
        }

        def make(folder: Path) -> None:
            if needs.mass is None:
                first_batch: Batch = next(iter(ctx.train.select([0]).loader(1)))
                size = logits_bytes(self(first_batch.inputs), 1, None)
                fill(folder, ctx, lambda inputs: {"logits": first(self.logits(inputs)).float()}, views, row_bytes=size)
            else:
                largest = TopClasses(self.logits, needs, needs.mass, ctx)
                largest.expect_room(len(ctx.train) * (views or 1), folder)
                fill(folder, ctx, largest, views, row_bytes=largest.bytes)
                (folder / MASS_FILE).write_text(json.dumps(largest.report()))

        folder = ctx.kept("teacher's logits", self.model, parts, make)
        self.cached, self.axis = CachedValues(folder, len(ctx.train)), needs.axis
        self.padded = ctx.train.collate is not None
        if needs.mass is not None:
            ctx.report("teacher_logits", json.loads((folder / MASS_FILE).read_text()))

    def answer(self, batch: Batch, progress: Progress, student: Tensor, *, inside: bool) -> ModelOutputs:
        """Its outputs on a batch: from the cache, unless its layers are read."""
        if self.cached is None or inside:
            return ModelOutputs(self(batch.inputs) if inside else self.logits(batch.inputs))
        values = {name: value.to(self.device) for name, value in self.cached(batch.index, progress.view).items()}
        if self.padded:  # by the batch; the cached one may have been longer or shorter
            places, axes = positions(student, self.axis), {"logits": self.axis, "rest": None}
            values = {name: fitted(value, places, axes.get(name, -1)) for name, value in values.items()}
        return ModelOutputs(values) if "logits" in values else ModelOutputs({}, sparse=Sparse(**values))


def open_teachers(
    configs: Sequence[TeacherConfig], training: TrainingSettings, incoming: Model, ctx: Context
) -> list[Teacher]:
    """The teachers on the context's device, in the precision of a training."""
    precision = mixed_precision(training, ctx.device)
    models = [config.open(incoming, ctx.baseline, incoming.example) for config in configs]
    return [Teacher(config, model, ctx, precision=precision) for config, model in zip(configs, models, strict=True)]


def why_not_cached(settings: TeacherSettings, needs: TeacherNeeds, task: HasTask, needed: int, folder: Path) -> str:
    """Why the teachers' logits are not cached; empty where they are.

    Args:
        settings: how the teachers are used.
        needs: what the terms need of them.
        task: the context or preview with the task: whether it augments, and reads other examples each time.
        needed: bytes that the logits would take.
        folder: on the disk that they would lie on.
    """
    if not settings.cache_teacher:
        return "cache_teacher is false"
    if needs.layers:
        return "no term looks at its logits alone"
    if task.train.varies:
        return (
            "the task reads its training examples differently each time; drawn in `augment` instead, `views` keeps them"
        )
    if task.augment and settings.views is None:
        return "each epoch shows a new augmentation; `views: 10` would keep ten"
    free = shutil.disk_usage(folder).free
    if needs.mass is None and needed > SHARE_OF_DISK * free:  # how much the largest take is known later
        return f"its logits would take {needed:,} of {free:,} free bytes; `mass: 0.999` would keep fewer"
    return ""


def logits_bytes(outputs: Outputs, examples: int, views: int | None) -> int:
    """Bytes that a teacher's cached logits take, from its outputs on an example batch."""
    logits = first(outputs)
    return 4 * prod(logits.shape[1:]) * examples * (views or 1)
