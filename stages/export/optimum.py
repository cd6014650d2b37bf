"""Export of encoders through Optimum's exporter, by choice in place of PyTorch's own."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import onnx
from onnx import TensorProto
from pydantic import Field

from pipeline.context import Context, Preview
from pipeline.deploy import located
from pipeline.errors import StageError
from pipeline.forms.graph import refill, rename, save, strip
from pipeline.forms.text.remapped import split
from pipeline.model import OnnxModel, TorchModel, call
from pipeline.stage import Stage
from stages.export.hugging_face import expect, export, library_model
from stages.export.onnx import check_parity, compare

FILLED = {"attention_mask": 1, "token_type_ids": 0}
"""What transformers takes these inputs to be where a task gives none."""


class OptimumExport(Stage):
    """An ONNX file of a transformers encoder by Optimum, checked against the torch model on real validation inputs.

    Choose it where export.onnx cannot trace a model, or for the graph that Optimum's own tools expect. The lengths of
    texts are dynamic. Encoder-decoders go through export.seq2seq.

    Example:
        - {use: export.optimum, opset: 18}
    """

    extra: ClassVar[str] = "optimum"

    opset: int = Field(18, ge=14, le=20, description="ONNX operator set")
    tolerance: float = Field(1e-4, gt=0, description="largest difference |onnx - torch| / (1 + |torch|) allowed")
    examples: int = Field(256, gt=0, description="validation examples to compare on")

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse a model that is no encoder of transformers."""
        expect(tuple(before), preview, generates=False)
        return ()

    def run(self, model: TorchModel, ctx: Context) -> OnnxModel:
        """The file; StageError when its outputs differ from the torch model's by more than the tolerance."""
        transformers_model = library_model(model, generates=False)
        path = ctx.directory / "model.onnx"
        ctx.directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=ctx.directory, prefix="optimum-") as folder:
            export(transformers_model, Path(folder), None, self.opset)
            files = sorted(Path(folder).glob("*.onnx"))
            if len(files) != 1:
                raise StageError(f"Optimum made {len(files)} graphs of it", expected="one", fix="Use export.onnx")
            proto = onnx.load(files[0])
        strip(proto)
        inner, exported = split(model.module)[0], located(model, path)
        fed = exported.feed(model.example)
        match_inputs(proto.graph, list(fed), transformers_model.main_input_name)
        match_outputs(proto.graph, list(call(inner, fed)))
        save(proto, path)
        check_parity(compare(model, exported, ctx, self.examples), self.tolerance, ctx)
        return exported


def match_inputs(graph: onnx.GraphProto, names: list[str], main: str) -> None:
    """Give the graph the inputs that the task gives: several by name; a single one is the main one, whatever its name.

    Raises:
        StageError: it needs one that the task does not give and that has no usual value.
    """
    if len(names) == 1:
        rename(graph, "input", [names[0] if value.name == main else value.name for value in graph.input])
    missing = [value for value in graph.input if value.name not in names]
    for value in missing:
        like = next((other.name for other in graph.input if other.name in names), None)
        if value.name not in FILLED or like is None:
            expected = f"the inputs that the task gives: {', '.join(names)}"
            fix = "Have the task give it, or use export.onnx"
            raise StageError(f"the graph needs an input `{value.name}`", expected=expected, fix=fix)
        graph.input.remove(value)
        _fill(graph, value.name, like, FILLED[value.name])


def match_outputs(graph: onnx.GraphProto, names: list[str]) -> None:
    """Leave the outputs that the module gives: a single one by position, others by name.

    Raises:
        StageError: the graph does not have one of them.
    """
    graph_outputs = [value.name for value in graph.output]
    if len(names) == 1 and names[0] not in graph_outputs:
        del graph.output[1:]
        rename(graph, "output", names)
        return
    if missing := [name for name in names if name not in graph_outputs]:
        expected = f"outputs that Optimum exports: {', '.join(graph_outputs)}"
        fix = "Have the forward give these alone, or use export.onnx"
        raise StageError(f"the graph has no output {', '.join(missing)}", expected=expected, fix=fix)
    by_name = {value.name: value for value in graph.output}
    refill(graph.output, [by_name[name] for name in names])


def _fill(graph: onnx.GraphProto, name: str, like: str, value: int) -> None:
    """Compute an input that is gone: one number everywhere, in the shape of another input."""
    number = onnx.helper.make_tensor("value", TensorProto.INT64, [1], [value])
    shape = onnx.helper.make_node("Shape", [like], [f"{name}_shape"], f"{name}_shape")
    filled = onnx.helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], f"{name}_filled", value=number)
    refill(graph.node, [shape, filled, *graph.node])
