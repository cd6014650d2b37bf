"""The student of a distilling stage: a builder of the user's, or the teacher with fewer layers or narrower."""

import inspect
from typing import Any, Literal, Self

import torch
from pydantic import Field, JsonValue, model_validator
from torch import Size, Tensor, nn

from pipeline.base.batches import Axes, Inputs
from pipeline.base.use import Reference, nearest
from pipeline.errors import ConfigError, blame
from pipeline.forms.layers import layer_lists
from pipeline.model import TorchModel, same
from stages.kd.inspection.layers import USE, kept_layers, spread
from stages.kd.inspection.skipped import predicted_without
from stages.trainer.zeros import structural

GIVEN = ("teacher", "incoming")
FUSED = ("in_proj_", "c_attn", "qkv")
"""In the names of weights that hold query, key and value one after the other: each is a part of its own."""


def _counts(layers: Any) -> Any:
    """Refuses in one message what the members of a union would each refuse in their own."""
    counts = list(layers.values()) if isinstance(layers, dict) else [] if layers is None else [layers]
    if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 1 for count in counts):
        raise ValueError("a number of layers, 1 or more, or one for each list: `{encoder.layer: 3}`")
    return layers


class Student(Reference):
    """Builds a student: `{use: models.py:Net, width: 16}`, or the teacher made smaller, with its weights.

    `{use: teacher}` is the teacher's own structure, untrained. `{use: incoming}` is the model that comes in, with its
    weights, for another teacher.
    `{shrink_of: teacher, layers: 3}` keeps three layers of every list of repeated layers, evenly spaced;
    `layers: {encoder.layer: 3}` of the lists that it names. Any other key is an argument of the builder: with
    `shrink_of` it takes the place of the one that the teacher was built with.
    """

    use: str = Field(default="", description="builds the student, such as models.py:Net")
    shrink_of: Literal["teacher"] | None = Field(default=None, description="make the teacher smaller instead")
    layers: JsonValue = Field(
        default=None,
        description="with shrink_of: how many layers stay in every list of layers, or by its name; else an argument",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.use) == bool(self.shrink_of):
            raise ValueError("either `use: models.py:Net` or `shrink_of: teacher`")
        if self.use in GIVEN and (self.layers or self.arguments):
            raise ValueError(f"no arguments beside `use: {self.use}`; `shrink_of: teacher` takes them")
        if self.shrink_of:
            _counts(self.layers)
        if self.shrink_of and not self.layers and not self.arguments:
            raise ValueError("`layers` or arguments of the teacher's builder beside `shrink_of`")
        return self

    def build(
        self, teacher: TorchModel | None, example: Inputs, axes: Axes | None = None, incoming: TorchModel | None = None
    ) -> TorchModel:
        """The student: untrained from `use`, with the teacher's weights from `shrink_of`; the teacher stays as it is.

        Args:
            teacher: what `shrink_of` means; None where there is none, or it is no torch model.
            example: a small batch of inputs.
            axes: those of the inputs whose length varies, for a builder; a teacher has its own.
            incoming: what `use: incoming` means; it is given as it is.

        Raises:
            ConfigError: there is no such model, its builder does not take the arguments, or nothing can be dropped.
        """
        fix = "Give the student a builder with `use`"
        if self.use == "incoming":
            if incoming is None:
                raise ConfigError("no torch model comes in", where="student", expected="one to train", fix=fix)
            return incoming
        if self.use and self.use != "teacher":
            layers: dict[str, Any] = {} if self.layers is None else {"layers": self.layers}
            arguments = self.arguments | layers
            return TorchModel.build(Reference(use=self.use, arguments=arguments, folder=self.folder), example, axes)
        if teacher is None:
            raise ConfigError("there is no torch model to shrink", where="student", expected="a torch teacher", fix=fix)
        if self.use:
            return untrained(teacher)
        with blame(ConfigError, "student (shrink_of)"):
            student = _rebuilt(teacher, self.arguments) if self.arguments else teacher
            return _shorter(student, self.layers) if self.layers else student


def untrained(model: TorchModel) -> TorchModel:
    """The same structure built again, with fresh weights."""
    fresh_model = TorchModel.build(model.builder, model.example, model.axes)
    for edit in structural(model.edits):
        fresh_model = fresh_model.edited(edit.use, **edit.arguments)
    return fresh_model


def copy_weights(teacher: nn.Module, student: nn.Module) -> None:
    """Give a student in place what fits of a teacher's parameters and buffers; what does not stays as it is.

    A tensor takes the one of the same name, of a larger one the leading slice on each axis: the same channels
    everywhere, so that what a layer reads is what the one before wrote, and whole attention heads where their size
    stays. In a shorter list of layers the i-th of N takes the (i * n // N)-th of the teacher's n.

    Args:
        teacher: it is not changed.
        student: built with the same code and other sizes.

    Reference:
        Xu, Chen, Vishniakov, Yin, Shen, Darrell, Liu and Liu: Initializing Models with Larger Ones, 2023, 2311.18823,
        section 3 (that all tensors take the same positions is what matters, not which).
    """
    source, origins = teacher.state_dict(), _origins(teacher, student)
    with torch.no_grad():
        for name, tensor in student.state_dict().items():
            layer = next((layer for layer in origins if name.startswith(layer)), "")
            origin = origins.get(layer, "") + name.removeprefix(layer)
            if origin in source and _fits(source[origin], tensor):
                tensor.copy_(_leading(source[origin], tensor.shape, _parts(origin, source)))


def _rebuilt(teacher: TorchModel, arguments: dict[str, JsonValue]) -> TorchModel:
    """What the teacher's builder gives with some arguments changed, with the teacher's weights."""
    if changes := structural(teacher.edits):
        problem = f"the teacher's structure was changed by `{changes[-1].use}` after it was built, "
        problem += f"so it cannot be built with other arguments ({', '.join(arguments)})"
        raise ConfigError(problem, fix="Use `layers` alone, or a builder with `use`")
    _check_arguments(teacher.builder, arguments)
    changed = teacher.builder.model_copy(update={"arguments": teacher.builder.arguments | arguments})
    student = TorchModel.build(changed, teacher.example, teacher.axes)
    copy_weights(teacher.module, student.module)
    return student


def _shorter(model: TorchModel, layers: Any) -> TorchModel:
    """The model with fewer layers, proven on its example to give what the whole one gives where it skips the others."""
    lists: dict[str, Any] = kept_layers(model, layers)
    student = model.edited(USE, lists=lists)
    names = ", ".join(f"`{name}`" for name in lists)
    with blame(ConfigError, f"the teacher with fewer layers in {names}", fix="Name other lists: `layers: {name: N}`"):
        outputs, teachers = student.predict(student.example), predicted_without(model, lists)
        shapes, expected = ({name: tuple(value.shape) for name, value in each.items()} for each in (outputs, teachers))
        if shapes != expected:
            raise ConfigError(f"it gives outputs {shapes}", expected=f"{expected}, as the teacher gives")
        for name, values in teachers.items():
            if not same(outputs[name], values):
                problem = f"its output `{name}` has other values"
                raise ConfigError(problem, expected="those of the teacher where it skips the others")
    return student


def _check_arguments(builder: Reference, arguments: dict[str, JsonValue]) -> None:
    """Refuse what the builder does not take."""
    if builder.is_lent:
        problem = "the teacher was given as an object, so it cannot be built with other arguments"
        fix = 'Use `layers` alone, a student with `use`, or give shrinkline.compress builder="models.py:net"'
        raise ConfigError(f"{problem} ({', '.join(arguments)})", fix=fix)
    parameters = inspect.signature(builder.resolve()).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    accepted_names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name in arguments:
        if name not in accepted_names:
            takes = ", ".join(f"`{k}`" for k in accepted_names) or "no arguments"
            raise ConfigError(f"`{builder.use}` takes no `{name}`{nearest(name, accepted_names)}", expected=takes)


def _origins(teacher: nn.Module, student: nn.Module) -> dict[str, str]:
    """Prefix of a student's layer -> that of the teacher's layer that it takes, where its list is shorter."""
    teacher_lists, student_lists = layer_lists(teacher), layer_lists(student)
    return {
        f"{layer}.": f"{teacher_lists[name][i]}."
        for name, layers in student_lists.items()
        if len(layers) < len(teacher_lists.get(name, []))
        for layer, i in zip(layers, spread(len(teacher_lists[name]), len(layers)), strict=True)
    }


def _fits(source: Tensor, target: Tensor) -> bool:
    """Whether a tensor can be cut to another's shape; a table of positions, which are integers, means nothing cut."""
    if source.shape == target.shape:
        return True
    smaller = source.ndim == target.ndim and all(a >= b for a, b in zip(source.shape, target.shape, strict=True))
    return smaller and source.is_floating_point()


def _parts(name: str, state: dict[str, Tensor]) -> int:
    """How many matrices a tensor holds one after the other on its longest axis: 3 for fused attention, else 1."""
    weight = state.get(name.replace("bias", "weight"))
    if weight is None or weight.ndim < 2 or not any(key in name for key in FUSED):
        return 1
    parts, rest = divmod(max(weight.shape[:2]), min(weight.shape[:2]))
    return 1 if rest else parts


def _leading(source: Tensor, shape: Size, parts: int) -> Tensor:
    """The leading slice on each axis, on the longest one of each of its parts."""
    longest = max(range(source.ndim), key=lambda axis: source.shape[axis], default=0)
    for axis, size in enumerate(shape):
        count = parts if axis == longest and size % parts == 0 else 1
        split = torch.unflatten(source, axis, (count, source.shape[axis] // count))
        source = split.narrow(axis + 1, 0, size // count).flatten(axis, axis + 1)
    return source
