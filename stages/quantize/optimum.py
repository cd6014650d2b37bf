"""Quantization through Optimum's ORTQuantizer: of one ONNX file, or of all graphs of an encoder-decoder."""

import platform
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import onnx
from pydantic import Field, JsonValue

from pipeline.base.hardware import VNNI, cpu_flags, saturation
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, StageError, blame
from pipeline.fit import forms
from pipeline.forms.deployed.seq2seq import DECODER, ENCODER, WITH_PAST, Seq2SeqOnnx
from pipeline.forms.external_data import CONFIGS, save_together
from pipeline.forms.generate import GRAPHS
from pipeline.model import Deployed, Model, OnnxModel
from pipeline.stage import Stage
from stages.quantize.dynamic import quantizable
from stages.quantize.graphs.reach import PRODUCTS, reached
from stages.quantize.graphs.tied_embeddings import Tied
from stages.quantize.mixed.effects import Activations
from stages.quantize.mixed.keep import Offer
from stages.quantize.mixed.keeps import KeepsScore
from stages.quantize.quantizing.assigned import Assigned
from stages.quantize.quantizing.quantizer import Prepared, check_settings, quantize, quantized_graph
from stages.quantize.quantizing.work import Work
from stages.quantize.rounding.layout import WEIGHTS

Target = Literal["arm64", "avx2", "avx512", "avx512_vnni", "ppc64le"]
ORDER = (DECODER, WITH_PAST, ENCODER)
"""In which graphs are quantized: the decoder has the output layer that an embedding may be tied to."""
REDUCIBLE = ("avx2", "avx512")  # those whose preset takes `reduce_range`; the others do not saturate


def this_machine() -> Target:
    """The name of Optimum's preset for the CPU here; that of x86 CPUs of 2013 and later where it is not known."""
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return "arm64"
    if machine.startswith("ppc64"):
        return "ppc64le"
    flags = cpu_flags()
    if flags & VNNI:
        return "avx512_vnni"
    return "avx512" if "avx512f" in flags else "avx2"


class OptimumQuantization(KeepsScore, Stage):
    """An ONNX file, or an encoder-decoder's files, with 8-bit weights by Optimum's ORTQuantizer.

    Choose it after export.seq2seq, where it takes every graph, or to have Optimum's presets for a CPU. Activations are
    measured at run time, so no calibration data is needed.

    Example:
        - {use: quantize.optimum, target: avx512_vnni}
    """

    quantizes: ClassVar[bool] = True
    extra: ClassVar[str] = "optimum"

    target: Target = Field(
        default_factory=this_machine,
        description="Optimum's preset of the CPU that runs it; this machine's unless given",
    )
    operators: tuple[str, ...] = Field(
        ("MatMul", "Gemm", "Gather"),
        min_length=1,
        description="ONNX operators to quantize, of those with constant weights; Gather is an embedding's",
    )
    per_channel: bool = Field(True, description="a scale for each output channel instead of one for each weight")
    reduce_range: bool = Field(False, description="7-bit weights, against saturation; for avx2 and avx512 alone")
    exclude: tuple[str, ...] = Field((), description="names of nodes to leave in fp32; of a single file")

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse unknown operators, and to look at layers of several graphs; warn of what a preset does not heed."""
        check_settings(before, preview.model, self.operators, quantizable())
        yield from self.check_keep(preview)
        asked = [name for name in ("keep", "exclude") if getattr(self, name)]
        if asked and any(Seq2SeqOnnx in (forms(type(stage))[1],) for stage in before):
            problem = f"`{asked[0]}` is given for an encoder-decoder, whose nodes are in three graphs"
            fix = "Leave it out; `operators` may name fewer"
            raise ConfigError(problem, expected="a single ONNX file", fix=fix)
        if self.reduce_range and self.target not in REDUCIBLE:
            yield f"`reduce_range` does nothing for {self.target}, whose sums do not saturate"
        if self.target != "avx2" and not self.reduce_range:
            yield from saturation(preview.isa, "the weights of `target: avx2` are unsigned, whose sums do not saturate")

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Which nodes have weights to quantize; refuse a graph without any."""
        return reached(model, self.operators, self.exclude)

    def offer(self) -> Offer:
        """Those that ORTQuantizer has."""
        return Offer((8,), has_more=False)

    def reads(self) -> Activations:
        """With the range of each call."""
        return "dynamic"

    def weighted(self) -> tuple[str, ...]:
        """Those of its operators whose weights take fewer bits; of a Gemm it makes a MatMul."""
        kinds = {*self.operators} | (PRODUCTS if PRODUCTS & {*self.operators} else set())
        return tuple(name for name in WEIGHTS if name in kinds)

    def run(self, model: Deployed, ctx: Context) -> Deployed:
        """The quantized files.

        Raises:
            StageError: no node of a graph was quantized, or no mixture of widths keeps the score.
        """
        return self._all(model, ctx) if isinstance(model, Seq2SeqOnnx) else self.kept(model, ctx)

    def quantized(self, model: OnnxModel, ctx: Context, assigned: Assigned | None = None) -> OnnxModel:
        """The same of a single file, with what a search assigns."""
        left, halves = (assigned.left, assigned.halves) if assigned else ((), ())
        exclude = (*self.exclude, *left)
        return quantize(model, ctx, self.operators, exclude, partial(self._work, exclude), halves)

    def _all(self, model: Seq2SeqOnnx, ctx: Context) -> Seq2SeqOnnx:
        protos: dict[str, onnx.ModelProto] = {}
        counts: dict[str, JsonValue] = {}
        quantizer = partial(self._work, (), tied=Tied())
        for name in ORDER:
            part = OnnxModel(model.path / f"{name}.onnx", {})
            with blame(StageError, part.path.name):
                quantized = quantized_graph(part, ctx, self.operators, (), quantizer)
            protos[name], counts[name] = quantized.proto, quantized.counts
        quantized_model = Seq2SeqOnnx(ctx.directory / "quantized", model.example)
        save_together({name: protos[name] for name in GRAPHS}, quantized_model.path)
        for name in CONFIGS:
            (quantized_model.path / name).write_bytes((model.path / name).read_bytes())
        ctx.report("quantization", {"target": self.target, "graphs": counts, "bytes": _bytes(model, quantized_model)})
        return quantized_model

    def _work(self, exclude: Sequence[str], prepared: Prepared, **tied: Tied) -> Work:
        settings: dict[str, Any] = {
            "preset": self.target,
            "per_channel": self.per_channel,
            "operators_to_quantize": sorted({"MatMul" if name == "Gemm" else name for name in self.operators}),
            "nodes_to_exclude": [*products_of_activations(prepared.graph), *prepared.named(exclude)],
        }
        reduced = {"reduce_range": self.reduce_range} if self.target in REDUCIBLE else {}
        return Work("optimum", settings | reduced | tied)


def products_of_activations(graph: onnx.GraphProto) -> list[str]:
    """Names of MatMuls of two activations, as in attention: quantizing these saves no byte, and ORTQuantizer would."""
    weights = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] not in weights]


def _bytes(before: Seq2SeqOnnx, after: Seq2SeqOnnx) -> JsonValue:
    """Of each file, before and after."""
    return {
        old.name: {"before": old.stat().st_size, "after": new.stat().st_size}
        for old, new in zip(before.files(), after.files(), strict=True)
    }
