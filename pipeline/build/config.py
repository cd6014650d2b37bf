"""YAML -> PipelineConfig, strict, with the file and the line in every error."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from pipeline.base.data.strict import Strict
from pipeline.base.hardware import Isa
from pipeline.base.use import Reference
from pipeline.gate.budget import Budget
from pipeline.gate.choice.choosing import Choosing

Axis = Literal["size", "payload", "params", "macs", "retention", "latency", "seconds"]


class OnnxFile(Strict):
    """`onnx:`: a file from outside, how it is called, and the limits of its process; a bare path is the file.

    The names are those of the file's inputs and outputs.
    """

    file: Path = Field(description="an ONNX file; its external data lie in its folder")
    memory: ByteSize | None = Field(
        default=None, gt=0, description="address space of the process; 16 GiB unless given, more for a file above 2 GiB"
    )
    seconds: float = Field(default=300.0, gt=0, description="for loading it, and for each batch")
    batch_axis: dict[str, NonNegativeInt] = Field(
        default={}, description="the axis of the examples, by name, where it is not the first: {h: 1}"
    )
    constants: dict[str, float | int] = Field(
        default={}, description="inputs that no example has and the number they always are: {sample_rate: 16000}"
    )
    state: dict[str, str] = Field(
        default={}, description="inputs that are zeros first and then what an output gave, step by step: {h: hn}"
    )

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As it was written: a record of a file that is called with a batch says nothing of calls."""
        fields: dict[str, Any] = handler(self)
        return {key: value for key, value in fields.items() if value != {}}


def _as_file(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


SHA256 = "[0-9a-fA-F]{64}"


def _as_digest(value: Any) -> Any:
    if value is None or (isinstance(value, str) and re.fullmatch(SHA256, value)):
        return value
    # To YAML a digest without letters is a number.
    raise ValueError("64 hexadecimal digits" + ("" if isinstance(value, str) else ", in quotes"))


class ModelSource(Reference):
    """`model:`: a builder with arguments and, when the model comes trained, its weights; or an ONNX file."""

    weights: Path | None = Field(
        default=None,
        description="a state dict: .safetensors, .pt/.pth without pickled code, a folder or index.json of Hugging Face",
    )
    onnx: Annotated[OnnxFile | None, BeforeValidator(_as_file, json_schema_input_type=OnnxFile | str | None)] = Field(
        default=None, description="an ONNX file in place of `use`: the chain starts at quantize or benchmark"
    )
    sha256: Annotated[str | None, BeforeValidator(_as_digest)] = Field(
        default=None,
        description="of the file that is loaded, checked before it is opened",
        json_schema_extra={"pattern": f"^{SHA256}$"},
    )

    model_config = ConfigDict(json_schema_extra=lambda schema: _use_or_onnx(schema))

    @model_validator(mode="before")
    @classmethod
    def _without_use(cls, data: Any) -> Any:
        """An ONNX file needs no builder."""
        return {"use": "", **data} if isinstance(data, dict) and data.get("onnx") is not None else data

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.use.endswith(".onnx"):
            raise ValueError(f"`onnx: {self.use}` for an ONNX file")
        if self.onnx and (self.use or self.weights or self.arguments):
            beside = [*(["use"] if self.use else []), *(["weights"] if self.weights else []), *self.arguments]
            raise ValueError(f"nothing but `sha256` beside `onnx`, and there is `{beside[0]}`")
        if self.sha256 and not (self.onnx or self.weights):
            raise ValueError("`weights` or `onnx` beside `sha256`, which is the digest of that file")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As it was written: a record tells no builder of an ONNX file, and nothing of one for a builder."""
        fields: dict[str, Any] = handler(self)
        optional_fields = {"use": self.use, "onnx": self.onnx, "sha256": self.sha256}
        return {key: value for key, value in fields.items() if key not in optional_fields or optional_fields[key]}


def _use_or_onnx(schema: dict[str, Any]) -> None:
    """Tell an editor that either will do."""
    schema.pop("required", None)
    schema["oneOf"] = [{"required": ["use"]}, {"required": ["onnx"]}]


class StageConfig(BaseModel):
    """One entry of `stages:`: `use` and the stage's own settings, which are checked against the stage itself."""

    model_config = ConfigDict(frozen=True, extra="allow")
    use: str

    @property
    def settings(self) -> dict[str, Any]:
        """All keys but `use`."""
        return dict(self.model_extra or {})


class Comparing(Strict):
    """`compare:`: how the strategies of a file, or several files, are compared."""

    seeds: int = Field(default=1, ge=1, le=100, description="trainings of each strategy, from `seed` on")
    axes: tuple[Axis, ...] = Field(
        default=("size", "retention"), min_length=2, max_length=3, description="of the Pareto front"
    )
    least: Axis = Field(default="size", description="what the chosen strategy has least of")
    retention: float | None = Field(
        default=None, gt=0, le=1, description="kept on validation; as the budget unless given"
    )
    choose: Choosing | None = Field(
        default=None, description="the pair of a strategy and a runtime to take; as `choose:` of the file unless given"
    )
    claims: dict[str, str] = Field(default={}, description="what is promised of a strategy, shown beside what it does")

    @field_validator("axes")
    @classmethod
    def _no_axis_twice(cls, axes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(axes)) < len(axes):
            raise ValueError("each axis once")
        return axes


class Target(Strict):
    """`target:`: the CPUs that the last file is for, where they are others than this one."""

    isa: Isa = Field(
        description="how they add products of integers: x86 without VNNI (avx2, avx512), x86 with it (vnni), or arm64; "
        "what files with integers answer there is emulated, and stands beside what they answer here"
    )


LONGEST = 200  # bytes of a name; that of the run's folder, which has a time too, may have 255


def _folder_name(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    if (
        "/" in name
        or name.startswith(".")
        or not name.strip()
        or not name.isprintable()
        or len(name.encode()) > LONGEST
    ):
        raise ValueError(f"a name must be fit for a folder, with at most {LONGEST} bytes")
    return name


class PipelineConfig(Strict):
    """A pipeline file."""

    name: Annotated[str | None, BeforeValidator(_folder_name)] = Field(
        default=None, description="of the runs; the file's by default"
    )
    task: Reference = Field(description="a built-in task such as digits, or data.py, data.py:function")
    model: ModelSource
    baseline: list[StageConfig] = Field(
        default=[], description="stages that make the reference; none when it comes trained"
    )
    stages: list[StageConfig] = Field(min_length=1)
    budget: Budget = Budget()
    choose: Choosing | None = Field(default=None, description="the runtime to take, and in a comparison the pair")
    compare: Comparing = Comparing()
    target: Target | None = Field(default=None, description="the CPUs that it is for, where they are others")
    seed: int = Field(default=0, ge=0, lt=2**32)
    limit: int | None = Field(
        default=None, gt=0, description="examples of each split at most, drawn with a fixed seed, for a trial"
    )
    batch: int | None = Field(
        default=None,
        gt=0,
        description="examples that the deployed model is given at a time, and is measured with; unless given 1 for a "
        "model whose answers depend on the examples beside them, and many for others",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    slower: Literal["warn", "fail", "ignore"] = Field(
        default="warn", description="what follows where a stage's file is surely slower than the one that came in"
    )
    folder: Path = Field(default=Path(), exclude=True, description="where files are looked for; the file's own folder")

    @property
    def isa(self) -> Isa | None:
        """The kind of CPU that it is for, where one is named."""
        return self.target.isa if self.target else None

    @property
    def choosing(self) -> Choosing | None:
        """How a runtime is chosen, wherever that is said."""
        return self.compare.choose or self.choose
