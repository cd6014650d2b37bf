"""Which teachers a stage has, and how they are used: its settings."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from pipeline import model as models
from pipeline.base.batches import Inputs
from pipeline.base.data.strict import Strict
from pipeline.base.files import files_below, folder_digest
from pipeline.base.use import Reference
from pipeline.errors import ConfigError, StageError, blame
from pipeline.forms.weights import load_weights
from pipeline.model import Model, TorchModel

NO_BASELINE = "Use teacher: incoming inside `baseline:`"


class TeacherConfig(Reference):
    """`incoming`, `baseline`, a builder with `weights`, or the folder of a `saved` model.

    Args:
        weights: a state dict in safetensors, or by torch.save, for a teacher that is built.
        saved: a folder in which a run has saved a model, such as runs/RUN/stages/0-distill.logits/model.
        allow: code that a saved model may name, beside what is ours and what files beside the pipeline file define.
        share: its weight among several.
        inputs: names of the inputs that it takes, or a function(inputs) -> inputs: another size, another modality.
    """

    use: str = ""
    weights: str | None = None
    saved: str | None = None
    allow: tuple[str, ...] = ()
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
            return models.load(self.folder / self.saved, self.folder, self.allow)
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
        if missing := [name for name in self.inputs if name not in inputs]:
            raise ConfigError(f"there is no input `{missing[0]}` for the teacher", expected=f"one of {sorted(inputs)}")
        return {name: inputs[name] for name in self.inputs}


class TeacherSettings(Strict):
    """Who teaches, and how; settings that every distilling stage and every recovery has."""

    teachers: tuple[TeacherConfig, ...] = Field((), description="several instead of `teacher`, each with a `share`")
    average: Literal["logits", "probabilities"] = Field(
        default="logits", description="what is averaged of several teachers' logits: before or after the softmax"
    )
    cache_teacher: bool = Field(default=True, description="run the teacher once an example and keep its logits on disk")
    views: int | None = Field(
        default=None, gt=0, description="augmentations of an example, with kept logits; null: another one each epoch"
    )


def inputs_key(config: TeacherConfig) -> dict[str, JsonValue]:
    """What cached values of a teacher depend on beside model and data: how its inputs are made, and that code."""
    reference = config.inputs if isinstance(config.inputs, Reference) else None
    return {**config.model_dump(mode="json", include={"inputs"}), "inputs_code": code_of(reference)}


def code_of(reference: Reference | None) -> str | None:
    """A digest of the folder of code that a reference to a user's file names; None for other code."""
    file = reference.use.partition(":")[0] if reference else ""
    return folder_digest((reference.folder / file).parent, "*.py") if reference and file.endswith(".py") else None
