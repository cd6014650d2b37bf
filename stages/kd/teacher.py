"""Teachers: where they come from, and their outputs on a batch of the training data."""

import copy
import json
import shutil
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from torch import Tensor, nn

from pipeline import model as models
from pipeline.base.batches import Inputs, Outputs
from pipeline.base.files import files_below, folder_digest
from pipeline.base.use import Reference
from pipeline.errors import ConfigError, StageError, blame
from pipeline.forms.weights import load_weights
from pipeline.model import Model, TorchModel, call
from pipeline.stage import Context
from pipeline.task import Batch
from stages.kd.cache import SHARE_OF_DISK, CachedValues, TeacherNeeds, TopClasses, fill, fitted
from stages.kd.inspection.hooks import Hook, Hooks
from stages.kd.losses.logits import positions
from stages.kd.losses.sparse import Sparse
from stages.kd.terms.term import ModelOutputs
from stages.trainer.objective import Progress, first, logits_first
from stages.trainer.settings import TrainingSettings, mixed_precision

NO_BASELINE = "Use teacher: incoming inside `baseline:`"
MASS_FILE = "mass.json"


class TeacherConfig(Reference):
    """`incoming`, `baseline`, a builder with `weights`, or the folder of a `saved` model.

    Args:
        weights: a state dict in safetensors, or by torch.save, for a teacher that is built.
        saved: a folder in which a run has saved a model, such as runs/RUN/stages/0-distill.logits/model.
        share: its weight among several.
        inputs: names of the inputs that it takes, or a function(inputs) -> inputs: another size, another modality.
    """

    use: str = ""
    weights: str | None = None
    saved: str | None = None
    share: float = Field(default=1.0, gt=0)
    inputs: tuple[str, ...] | Reference | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.use) == bool(self.saved):
            raise ValueError("expected either `use` (incoming, baseline or a builder) or `saved`")
        if (self.saved or self.in_chain) and (self.arguments or self.weights):
            raise ValueError(f"`{self.saved or self.use}` comes trained and takes no arguments and no `weights`")
        return self

    @property
    def in_chain(self) -> bool:
        """Whether it is a model of the chain."""
        return self.use in ("incoming", "baseline")

    def files(self) -> list[Path]:
        """Files whose content counts beside the code."""
        if self.saved:
            return files_below(self.folder / self.saved)
        return [self.folder / self.weights] if self.weights else []

    def open(self, incoming: Model | None, baseline: Model | None, example: Inputs) -> Model:
        """The model. Raises ConfigError where there is none, or its weights do not fit."""
        if self.in_chain:
            in_chain = incoming if self.use == "incoming" else baseline
            if in_chain is None:
                raise ConfigError("there is no baseline yet", fix=NO_BASELINE)
            return in_chain
        if self.saved:
            return models.load(self.folder / self.saved, self.folder)
        builder = Reference(use=self.use, arguments=self.arguments, folder=self.folder)
        model = TorchModel.build(builder, self.adapted(example))
        if self.weights:
            load_weights(model.module, self.folder / self.weights)
        return model

    def adapted(self, inputs: Inputs) -> Inputs:
        """A batch's inputs as this teacher takes them."""
        if self.inputs is None:
            return inputs
        if isinstance(self.inputs, Reference):
            with blame(StageError, f"inputs of the teacher ({self.inputs.use})"):
                return dict(self.inputs.call(inputs))
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise ConfigError(f"there is no input `{missing[0]}` for the teacher", expected=f"one of {sorted(inputs)}")
        return {name: inputs[name] for name in self.inputs}


class TeacherSettings(BaseModel):
    """Who teaches, and how; settings that every distilling stage and every recovery has."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    teachers: tuple[TeacherConfig, ...] = Field(
        default=(), description="several instead of `teacher`, each with a `share`"
    )
    average: Literal["logits", "probabilities"] = Field(
        default="logits", description="what is averaged of several teachers' logits: before or after the softmax"
    )
    cache_teacher: bool = Field(default=True, description="run the teacher once an example and keep its logits on disk")
    views: int | None = Field(
        default=None, gt=0, description="augmentations of an example, with kept logits; null: another one each epoch"
    )


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
    models_of = [config.open(incoming, ctx.baseline, incoming.example) for config in configs]
    return [Teacher(config, model, ctx, precision=precision) for config, model in zip(configs, models_of, strict=True)]


def why_not_cached(settings: TeacherSettings, needs: TeacherNeeds, augmented: bool, needed: int, folder: Path) -> str:
    """Why the teachers' logits are not cached; empty where they are.

    Args:
        settings: how the teachers are used.
        needs: what the terms need of them.
        augmented: whether the task augments.
        needed: bytes that the logits would take.
        folder: on the disk that they would lie on.
    """
    if not settings.cache_teacher:
        return "cache_teacher is false"
    if needs.layers:
        return "no term looks at its logits alone"
    if augmented and settings.views is None:
        return "each epoch shows a new augmentation; `views: 10` would keep ten"
    free = shutil.disk_usage(folder).free
    if needs.mass is None and needed > SHARE_OF_DISK * free:  # how much the largest take is known later
        return f"its logits would take {needed:,} of {free:,} free bytes; `mass: 0.999` would keep fewer"
    return ""


def logits_bytes(outputs: Outputs, examples: int, views: int | None) -> int:
    """Bytes that a teacher's cached logits take, from its outputs on an example batch."""
    logits = first(outputs)
    return 4 * prod(logits.shape[1:]) * examples * (views or 1)


def inputs_key(teacher: TeacherConfig) -> dict[str, JsonValue]:
    """What cached values of a teacher depend on beside model and data: how its inputs are made, and that code."""
    reference = teacher.inputs if isinstance(teacher.inputs, Reference) else None
    return {**teacher.model_dump(mode="json", include={"inputs"}), "inputs_code": code_of(reference)}


def code_of(reference: Reference | None) -> str | None:
    """A digest of the folder of code that a reference to a user's file names; None for other code."""
    if reference is None or not reference.use.partition(":")[0].endswith(".py"):
        return None
    return folder_digest((reference.folder / reference.use.partition(":")[0]).parent, "*.py")
