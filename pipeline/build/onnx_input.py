"""The model of a chain that starts with an ONNX file: whether its graph takes what the task gives, name by name."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.base.batches import Inputs
from pipeline.build.config import ModelSource
from pipeline.build.onnx_calls import calls_of, remedies
from pipeline.errors import ConfigError, Note, blame
from pipeline.fit import forms
from pipeline.forms.sandbox.check import FilePort, Graph, check
from pipeline.forms.sandbox.process import Limits
from pipeline.forms.sandbox.session import Outside
from pipeline.forms.weights import verify
from pipeline.model import OnnxModel, TorchModel
from pipeline.stage import Stage
from pipeline.task import Task

BARE = "input", "output"
"""What a task calls a bare tensor."""
MUCH = 0.05
"""Share of a file that is worth a warning."""
NUMBERS = ("float", "int", "uint", "bool", "complex")


def check_stages_take_onnx(chain: Sequence[tuple[str, Stage]], file: Path) -> None:
    """Raise ConfigError for a stage that needs a torch model where there is only a file."""
    form: type = OnnxModel
    for place, stage in chain:
        with blame(ConfigError, place):
            takes, gives = forms(type(stage))
        if form is OnnxModel and OnnxModel not in takes and TorchModel in takes:
            problem = f"it needs a torch model, and the model comes as an ONNX file, {file}"
            expected = "a stage that takes an ONNX file, such as quantize.static or benchmark.latency"
            fix = "Leave it out, or give the module: `model: {use: models.py:net, weights: net.safetensors}`"
            raise ConfigError(problem, where=place, expected=expected, fix=fix)
        form = gives or form


def open_onnx(source: ModelSource, task: Task, example: Inputs) -> tuple[OnnxModel, list[str]]:
    """The model, which a child has run on the first examples, and what there is to say of it.

    Args:
        source: with `onnx`.
        task: what the model is for.
        example: the first examples of its training data.

    Raises:
        ConfigError: the file did not pass the checks, or its graph does not take what the task gives.
        ForeignError: it crashed the process that ran it.
    """
    if source.onnx is None:
        raise ConfigError("there is no `onnx`", where="model")
    path = source.folder / source.onnx.file
    # As the file's own errors say it, so that none names it twice.
    with blame(ConfigError, f"model {path}", fix="Look at it with Netron, or export it again"):
        if source.sha256 and path.is_file():
            verify(path, source.sha256)
        limits = Limits(source.onnx.memory, source.onnx.seconds)
        graph = check(path, limits.memory)
        calls, seen = calls_of(graph, source.onnx, example)
        inputs, outputs = bind(seen, task, example, remedies(graph, example))
        model = OnnxModel(path, example, outside=Outside(inputs, outputs, limits, calls))
        model.predict(example)
    texts = [f"the task's `{task_name}` is `{graph_name}` in the file" for task_name, graph_name in inputs.items()]
    texts += [f"the file's `{graph_name}` is the task's `{task_name}`" for graph_name, task_name in outputs.items()]
    unused = [name for name in example if inputs.get(name, name) not in {port.name for port in graph.inputs}]
    texts += [f"the file does not take {', '.join(f'`{name}`' for name in unused)}"] if unused else []
    texts += [f"it takes {calls.batch} example{'s' * (calls.batch > 1)} at a time"] if calls.batch else []
    texts += ["it comes from outside and is run in a process of its own"]
    notes: list[str] = [Note(f"model ({source.onnx.file}): {text}") for text in texts]
    share = graph.remarks_bytes / graph.size_bytes
    if share < MUCH:
        return model, notes
    remarks = f"{graph.remarks_bytes:,} of its {graph.size_bytes:,} bytes are remarks of its exporter"
    return model, [*notes, f"model ({source.onnx.file}): {remarks}, which stages leave out: ratios of size count them"]


def bind(graph: Graph, task: Task, example: Inputs, fix: str = "") -> tuple[dict[str, str], dict[str, str]]:
    """The task's names of inputs -> the graph's, and the graph's names of outputs -> the task's, where they differ.

    A single input that the task calls "input", as a bare tensor is called, and a single output are bound by position.

    Raises:
        ConfigError: names, ranks, sizes or types differ.
    """
    inputs: dict[str, str] = {}
    if list(example) == [BARE[0]] and len(graph.inputs) == 1 and graph.inputs[0].name != BARE[0]:
        inputs = {BARE[0]: graph.inputs[0].name}
    task_names = {graph_name: name for name, graph_name in inputs.items()}
    ports = {task_names.get(port.name, port.name): port for port in graph.inputs}
    if not ports or not all(_fits(port, name, task, example) for name, port in ports.items()):
        raise ConfigError(
            f"the file takes {_listed(graph.inputs) or 'nothing'}, and the task gives {_listed(_given(task, example))}",
            expected="equal names, types and sizes; `?` and names stand for any size",
            fix=fix or "Change what the task gives, or export the file for it",
        )
    return inputs, _outputs(graph.outputs, task.output)


def _outputs(ports: Sequence[FilePort], output_name: str | None) -> dict[str, str]:
    names = [port.name for port in ports]
    strange = [port for port in ports if not port.dtype.startswith(NUMBERS)]
    if strange or not ports:
        fix = "Export it without, for a classifier of scikit-learn with zipmap=False and the probabilities alone"
        message = f"it gives {_listed(strange)}" if strange else "it has no outputs"
        raise ConfigError(message, expected="tensors of numbers", fix=fix)
    if len(names) == 1 and names[0] != (output_name or BARE[1]):
        return {names[0]: output_name or BARE[1]}
    if output_name and output_name not in names:
        expected = f"`{output_name}`, the task's `output`, among them"
        raise ConfigError(f"it gives the outputs {', '.join(names)}", expected=expected)
    return {}


def _fits(port: FilePort, name: str, task: Task, example: Inputs) -> bool:
    """Whether the graph's input takes what the task gives by that name; the batch is looked at later."""
    value = example.get(name)
    if value is None or port.dtype != _dtype(value):
        return False
    if port.shape is None:
        return True
    varying = task.axes.get(name, {})
    sizes = [(axis, size) for axis, size in enumerate(port.shape) if axis and isinstance(size, int)]
    return len(port.shape) == value.ndim and all(value.shape[i] == size and i not in varying for i, size in sizes)


def _given(task: Task, example: Inputs) -> list[FilePort]:
    """What the task gives, as ports."""
    ports = []
    for name, value in example.items():
        varying: dict[int, str] = {0: "batch", **task.axes.get(name, {})}
        shape = tuple(varying.get(axis, size) for axis, size in enumerate(value.shape))
        ports.append(FilePort(name, _dtype(value), shape))
    return ports


def _dtype(value: object) -> str:
    return str(getattr(value, "dtype", "")).removeprefix("torch.")


def _listed(ports: Sequence[FilePort]) -> str:
    return ", ".join(map(str, ports))
