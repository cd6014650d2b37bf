"""How the file of `model: {onnx: ...}` is called: read from its ports, and from what the pipeline file says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.base.batches import Inputs
from pipeline.build.config import OnnxFile
from pipeline.errors import ConfigError
from pipeline.forms.sandbox.calls import Calls, State, Value
from pipeline.forms.sandbox.check import FilePort, Graph

BATCH, STEPS = "batch", "steps"
SAY = "Say in `model: {onnx: {file: ..., HERE}}`"

Ports = Mapping[str, FilePort]


def calls_of(graph: Graph, said: OnnxFile, example: Inputs) -> tuple[Calls, Graph]:
    """How the file is called, and its graph as the task sees it: examples in front, without states and constants.

    An axis that has the name of another input's batch is the batch. Where the file fixes the batch, so many examples go
    in at a time.

    Raises:
        ConfigError: what is said names no port or no axis of it, or the batch is fixed in one input and not in another.
    """
    inputs, outputs = ({port.name: port for port in ports} for ports in (graph.inputs, graph.outputs))
    _check_names(said, inputs, outputs)
    data = [port for name, port in inputs.items() if name not in {*said.constants, *said.state}]
    axes = _batch_axes(data, (*graph.inputs, *graph.outputs), said.batch_axis)
    known = [*data, *(inputs[name] for name in said.state if name in axes)]
    batch = _batch(known, axes)
    constants = {name: _constant(inputs[name], number) for name, number in said.constants.items()}
    states = {name: State(given, _start(inputs[name], axes, batch)) for name, given in said.state.items()}
    steps = tuple(port.name for port in data if said.state and _has_steps(port, data, example))
    calls = Calls(batch, {name: axis for name, axis in axes.items() if axis}, constants, states, steps)
    seen = tuple(_seen(port, axes, port.name in steps) for port in data)
    return calls, replace(
        graph, inputs=seen, outputs=tuple(p for p in graph.outputs if p.name not in said.state.values())
    )


def remedies(graph: Graph, example: Inputs) -> str:
    """What to say of inputs that no example has, where they look like a state or like a constant; may be empty."""
    spare = [port for port in graph.inputs if port.name not in example]
    states = {port.name: given for port in spare if (given := _given_by(port, graph.outputs))}
    single = [port.name for port in spare if port.shape in ((), (1,)) and port.name not in states]
    parts = [f"state: {{{', '.join(f'{name}: {given}' for name, given in states.items())}}}"] if states else []
    parts += [f"constants: {{{', '.join(f'{name}: NUMBER' for name in single)}}}"] if single else []
    return SAY.replace("HERE", ", ".join(parts)) if parts else ""


def _given_by(port: FilePort, outputs: Sequence[FilePort]) -> str | None:
    """The output that has the type and the sizes of an input of two axes or more, as the next state has."""
    sizes = _sizes(port)
    same = [given.name for given in outputs if given.dtype == port.dtype and _sizes(given) == sizes]
    return same[0] if same and len(sizes) > 1 and any(isinstance(size, int) for size in sizes) else None


def _sizes(port: FilePort) -> list[int | None]:
    return [size if isinstance(size, int) else None for size in port.shape or ()]


def _check_names(said: OnnxFile, inputs: Ports, outputs: Ports) -> None:
    both: Ports = {**inputs, **outputs}
    wanted = [("batch_axis", name, both) for name in said.batch_axis]
    wanted += [("constants", name, inputs) for name in said.constants]
    wanted += [("state", name, inputs) for name in said.state]
    wanted += [("state", name, outputs) for name in said.state.values()]
    for key, name, ports in wanted:
        if name not in ports:
            kind = "input" if ports is inputs else "output" if ports is outputs else "input or output"
            raise ConfigError(f"`{key}` names an {kind} `{name}`", expected=f"one of {', '.join(ports)}")
    for name, axis in said.batch_axis.items():
        if axis >= len(both[name].shape or ()):
            raise ConfigError(f"`batch_axis` says axis {axis} of {both[name]}", expected="an axis that it has")


def _batch_axes(data: Sequence[FilePort], ports: Sequence[FilePort], said: Mapping[str, int]) -> dict[str, int]:
    """The axis of the batch where it is said, or known by its name."""
    names = {port.shape[said.get(port.name, 0)] for port in data if port.shape} - {None}
    axes = dict[str, int]()
    for port in ports:
        called = [axis for axis, size in enumerate(port.shape or ()) if isinstance(size, str) and size in names]
        if port.name in said or called:
            axes[port.name] = said.get(port.name, min(called, default=0))
    return axes


def _batch(ports: Sequence[FilePort], axes: Mapping[str, int]) -> int | None:
    """The number of examples that the file takes; None for any."""
    if bare := [port for port in ports if port.shape == ()]:
        fix = SAY.replace("HERE", f"constants: {{{bare[0].name}: NUMBER}}")
        raise ConfigError(f"it takes {bare[0]}, which has no axis for examples", expected="a batch", fix=fix)
    shapes = {port: port.shape for port in ports if port.shape}
    sizes = {port: shape[axes.get(port.name, 0)] for port, shape in shapes.items()}
    fixed = {port: size for port, size in sizes.items() if isinstance(size, int)}
    if not fixed:
        return None
    port, batch = next(iter(fixed.items()))
    if len(fixed) < len(sizes) or set(fixed.values()) != {batch} or not batch:
        others = ", ".join(map(str, (other for other in sizes if sizes[other] != batch)))
        fix = SAY.replace("HERE", f"batch_axis: {{{port.name}: AXIS}}") + ", or state or constants, which it may be"
        expected = f"the same of {others}" if others else "examples"
        raise ConfigError(f"the batch of its input {port} is fixed to {batch}", expected=expected, fix=fix)
    return batch


def _constant(port: FilePort, number: float) -> Value:
    if port.shape is None or not all(isinstance(size, int) for size in port.shape):
        problem = f"`constants` names {port}, whose sizes are free"
        raise ConfigError(problem, expected="an input of fixed sizes, such as a scalar")
    if not isinstance(number, float) or "float" in port.dtype or number.is_integer():
        return Value(port.dtype, tuple(map(int, port.shape)), number)  # type: ignore[arg-type]  # all are integers
    raise ConfigError(f"`constants` gives {number} to {port}", expected=f"a number of type {port.dtype}")


def _start(port: FilePort, axes: Mapping[str, int], batch: int | None) -> Value:
    """The zeros of a state; the size of a free batch is 0."""
    sizes = [*(port.shape or ())]
    axis = axes.get(port.name, 0)
    if sizes and not isinstance(sizes[axis], int):
        sizes[axis] = batch or 0
    whole = [size for size in sizes if isinstance(size, int)]
    if not sizes or len(whole) < len(sizes) or (batch is None and 0 not in whole):
        fix = SAY.replace("HERE", f"batch_axis: {{{port.name}: AXIS}}")
        raise ConfigError(f"its state is {port}", expected="fixed sizes, and one axis for the batch", fix=fix)
    return Value(port.dtype, tuple(whole))


def _has_steps(port: FilePort, data: Sequence[FilePort], example: Inputs) -> bool:
    """Whether the task gives sequences where the file takes a step."""
    value = example.get(port.name, next(iter(example.values())) if len(data) == len(example) == 1 else None)
    return value is not None and port.shape is not None and value.ndim == len(port.shape) + 1


def _seen(port: FilePort, axes: Mapping[str, int], has_steps: bool) -> FilePort:
    """An input as the task gives it."""
    if port.shape is None:
        return port
    axis = axes.get(port.name, 0)
    rest = (*port.shape[:axis], *port.shape[axis + 1 :])
    return port._replace(shape=(BATCH, *((STEPS,) if has_steps else ()), *rest))
