"""Floats in 16 bits: half the size, the same latency where they are only stored so."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import onnx
from pydantic import Field, JsonValue

from pipeline.base.formatting import bytes_text, few
from pipeline.base.use import nearest
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Note, ShrinkError, StageError, blame
from pipeline.forms.external_data import load_whole
from pipeline.forms.graph import EXTERNAL_DATA_BYTES, read_by, save, strip
from pipeline.measure.size import elements
from pipeline.model import Model, OnnxModel
from pipeline.stage import Stage
from stages.quantize.graphs.names import name_each
from stages.quantize.halves.answers import furthest
from stages.quantize.halves.graph import floats, meant, names_in, with_those_behind
from stages.quantize.halves.numbers import Kind
from stages.quantize.mixed.effects import Activations
from stages.quantize.mixed.keep import Offer, Width
from stages.quantize.mixed.keeps import KeepsScore
from stages.quantize.mixed.measuring import Row
from stages.quantize.quantizing.assigned import Assigned
from stages.quantize.quantizing.quantizer import check_settings, name_nodes, named
from stages.quantize.quantizing.work import Work, worker
from stages.quantize.rounding.layout import WEIGHTS
from stages.quantize.steps.files import Done, Files

CLOSE = 0.01
"""How far outputs may be from fp32's, as a share of their range, before a warning says so."""
MANY = 0.01
"""Share of a weight's numbers that may become zero before a warning says so; the record has all."""


class HalfPrecision(KeepsScore, Stage):
    """An ONNX file with weights of 16 bits, that takes and gives fp32: half the size.

    Choose it where int8 costs too much accuracy. By default weights are stored in 16 bits and computed in fp32: the
    runtime makes fp32 of them when it loads the file, so latency and memory are those of fp32.

    Example:
        - {use: quantize.half, fp32: [head]}

    Reference: Paulius Micikevicius et al., "Mixed Precision Training", 2018, arXiv:1710.03740; bf16: Dhiraj Kalamkar et
    al., "A Study of BFLOAT16 for Deep Learning Training", 2019, arXiv:1905.12322.
    """

    quantizes: ClassVar[bool] = True
    prepares: ClassVar[bool] = False
    spares_in: ClassVar[str] = "fp32"
    remedy: ClassVar[str] = "Leave compute at fp32, or name in `fp32` operators that cost most"

    kind: Kind = Field(
        "fp16", description="fp16 has 11 bits of precision and ends at 65504; bf16 has 8, and fp32's range"
    )
    compute: Literal["fp32", "half"] = Field(
        "fp32", description="half computes in fp16 too, for GPUs; on CPUs it is rarely faster than fp32"
    )
    fp32: tuple[str, ...] = Field(
        (), description="what stays in fp32: operators, or names of nodes, layers or what layers are in"
    )
    examples: int = Field(64, ge=1, description="calibration examples of which outputs are compared with fp32's")

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse bf16 to compute in; warn of what is slower on CPUs."""
        check_settings(before, preview.model, (), ())
        if self.compute == "half" and self.kind == "bf16":
            fix = "Set kind: fp16, or leave compute at fp32"
            raise ConfigError("`kind` is bf16 and `compute` is half, for which ONNX Runtime has no kernels", fix=fix)
        yield from self.check_keep(preview)
        if self.compute == "half":
            yield "ONNX Runtime computes most of fp16 in fp32 on CPUs, with casts between; `compute: fp32` has none"

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Which weights become halves; refuse a graph without any, and an unknown name."""
        if isinstance(model, OnnxModel):
            proto = onnx.load(model.path, load_external_data=False)
            if not proto.functions:
                name_each(proto.graph)
                yield from _told(proto.graph, _apart(proto.graph, self.fp32, ConfigError))

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The file in halves.

        Raises:
            StageError: a name of `fp32` is unknown, a weight has numbers that 16 bits do not hold, outputs become
                infinite on the calibration data, or no mixture of widths keeps the score.
            ForeignError: a file from outside crashed the process that converts it.
        """
        return self.kept(model, ctx)

    def offer(self) -> Offer:
        """Its kind, and fp32."""
        return Offer((self.kind,), ("fp32",), has_more=False)

    def reads(self) -> Activations:
        """As it computes."""
        return "half" if self.compute == "half" else "float"

    def weighted(self) -> tuple[str, ...]:
        """All that have layers; other weights go with these."""
        return tuple(WEIGHTS)

    def measured(
        self, widths: Sequence[Width], model: OnnxModel, ctx: Context, examples: int, **more: Any
    ) -> list[Row]:
        """The same, without what stays in fp32."""
        apart = _apart(named(model).graph, self.fp32, StageError)
        return super().measured(widths, model, ctx, examples, exclude=apart, **more)

    def done(self, reports: Mapping[str, Any]) -> set[str]:
        """The names of the nodes that read a weight in halves."""
        return {entry["node"] for entry in reports.get("half", {}).get("layers", [])}

    def spared(self, model: OnnxModel, nodes: Collection[str]) -> list[str]:
        """The nodes, and those that go with them."""
        return self._with_others(named(model).graph, nodes)

    def _with_others(self, graph: onnx.GraphProto, nodes: Collection[str]) -> list[str]:
        """Nodes and those behind each up to the next layer; where fp32 is computed in, of these the ones with weights.

        So that a layer in fp32 has its bias and its norm in fp32 too, and gives large numbers to none that computes in
        fp16.
        """
        every, weights = with_those_behind(graph, nodes), {tensor.name for tensor in floats(graph)}
        reading = {node.name for node in graph.node if weights.intersection(read_by(node))}
        return [name for name in every if self.compute == "half" or name in reading]

    def quantized(self, model: OnnxModel, ctx: Context, assigned: Assigned | None = None) -> OnnxModel:
        """The same, with what a search assigns: then nodes whose weights 16 bits do not hold stay in fp32, too."""
        ctx.directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=ctx.directory, prefix="quantize-") as folder, worker(model) as do:
            external = sum(file.stat().st_size for file in model.files()) > EXTERNAL_DATA_BYTES
            source, target = (Path(folder) / f"{name}.onnx" for name in ("named", "half"))
            name_nodes(model, source, external)
            graph = onnx.load(source, load_external_data=False).graph
            others = self._with_others(graph, assigned.left) if assigned else []
            apart = [*dict.fromkeys((*_apart(graph, self.fp32, StageError), *others))]
            settings = {"kind": self.kind, "compute": self.compute, "apart": apart, "spares": assigned is not None}
            with blame(StageError, model.path.name):
                done = do(Work("half", settings), Files(source, target, external))
            proto = load_whole(target)
        if not done.layers:
            raise StageError("no weight became a half", expected=SOME, fix="Name less in `fp32`")
        strip(proto)
        result = replace(model, path=ctx.directory / "half.onnx")
        save(proto, result.path)
        self._warn(done, ctx)
        left: dict[str, JsonValue] = {why: [*names] for why, names in done.left.items() if names}
        report: dict[str, JsonValue] = {"fp32": [*apart], **left, "layers": [*done.layers]}
        ctx.report("half", report)  # a search wants it also where outputs become infinite
        worst = furthest(model, result, ctx.calibration, self.examples, in_child=self.compute == "half")
        if worst is not None and worst > CLOSE:
            ctx.warn(f"in {self.kind} outputs are up to {worst:.1%} of their range from fp32's")
        ctx.report("half", report if worst is None else {**report, "difference": worst})
        return result

    def _warn(self, done: Done, ctx: Context) -> None:
        some = [entry for entry in done.layers if entry["vanishing"] > MANY * entry["numbers"]]
        if names := [*dict.fromkeys(f"{entry['vanishing']} of `{entry['weight']}`" for entry in some)]:
            ctx.warn(f"numbers too small for {self.kind} become zero: {few(names)}")


SOME = "weights of float32, of 32 numbers or more"


def _apart(graph: onnx.GraphProto, keys: Sequence[str], error: type[ShrinkError]) -> list[str]:
    """The names of the nodes that stay in fp32. Raises `error` for a key that means none."""
    some = meant(graph, keys)
    for key, nodes in some.items():
        if not nodes:
            known = [*dict.fromkeys(label for labels in names_in(graph).values() for label in labels)]
            problem = f"`fp32` has `{key}`, and no operator, node or layer has that name{nearest(key, known)}"
            raise error(problem, expected="operators, nodes, or layers as their weights have them")
    return [*dict.fromkeys(name for nodes in some.values() for name in nodes)]


def _told(graph: onnx.GraphProto, apart: Sequence[str]) -> Iterator[Note]:
    tensors = [*floats(graph, apart)]
    if not tensors:
        raise ConfigError("no weight would become a half", expected=SOME, fix="Name less in `fp32`")
    rest = [*{tensor.name for tensor in floats(graph)} - {tensor.name for tensor in tensors}]
    size = bytes_text(4 * sum(map(elements, tensors)))
    stays = (
        f"; {few([f'`{name}`' for name in sorted(rest)])} {'stays' if len(rest) == 1 else 'stay'} in fp32"
        if rest
        else ""
    )
    yield Note(f"stores {len(tensors)} weights, {size} in fp32, in 16 bits{stays}")
