"""Weight-only quantization: weights of 8, 4 or 2 bits in blocks, activations in fp32."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import onnx
from pydantic import Field

from pipeline.context import Context, Preview
from pipeline.errors import ConfigError
from pipeline.model import Model, OnnxModel
from pipeline.stage import Stage
from stages.quantize.blocks.methods import Method
from stages.quantize.graphs.reach import reached
from stages.quantize.graphs.rewrite import chosen
from stages.quantize.mixed.effects import Activations
from stages.quantize.mixed.keep import Offer
from stages.quantize.mixed.keeps import KeepsScore
from stages.quantize.quantizing.assigned import Assigned
from stages.quantize.quantizing.quantizer import Prepared, check_settings, quantize
from stages.quantize.quantizing.work import Work
from stages.quantize.rounding.data import calibration
from stages.quantize.rounding.plan import schemes

Operator = Literal["MatMul", "Gemm", "Gather"]
OPERATORS: tuple[Operator, ...] = ("MatMul", "Gemm", "Gather")
Bits = Literal[8, 4, 2]
FEW = 100
NARROW = 128
"""Wide as products must be for their weights in blocks to be read sooner than those in fp32."""


class WeightQuantization(KeepsScore, Stage):
    """An ONNX file with weights of 8, 4 or 2 bits in blocks, and activations in fp32, or in 8 bits within a product.

    Choose it for transformers whose size counts, or whose accuracy `quantize.dynamic` costs. ONNX Runtime and
    OpenVINO read its operators. Where a CPU has fast 8-bit kernels `compute: int8` and `quantize.dynamic` are faster.

    Example:
        - {use: quantize.weights, bits: 4, layers: {head: 8}}

    Reference: k-quants of llama.cpp; Elias Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative
    Pre-trained Transformers", 2022, arXiv:2210.17323; Hicham Badri and Appu Shaji, "Half-Quadratic Quantization of
    Large Machine Learning Models", 2023.
    """

    quantizes: ClassVar[bool] = True

    bits: Bits = Field(4, description="of the weights")
    method: Method = Field(
        "k_quant",
        description="how they are rounded: nearest; k_quant, of least squared error; hqq, which forgives outliers, for "
        "4 and 2 bits; gptq, so that outputs on the calibration data change least",
    )
    block_size: Literal[16, 32, 64, 128, 256] = Field(
        32, description="weights of a row that share a scale of 32 bits and a zero point"
    )
    symmetric: bool = Field(False, description="no zero points, for nearest and gptq; a little smaller and less exact")
    compute: Literal["fp32", "int8"] = Field(
        "int8", description="int8 rounds the inputs of products to 8 bits at each call, block by block: faster on CPUs"
    )
    operators: tuple[Operator, ...] = Field(
        OPERATORS,
        min_length=1,
        description="ONNX operators to quantize, of those with constant weights; Gather is an embedding's",
    )
    layers: dict[str, Bits] = Field(
        {}, description="bits of some layers, by the name of a node, a layer or what layers are in"
    )
    exclude: tuple[str, ...] = Field((), description="names of nodes to leave in fp32")
    examples: int | None = Field(None, ge=1, description="calibration examples at most, for gptq; null takes all")
    batch_size: int = Field(64, ge=1, description="calibration examples a batch, for gptq")

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse settings that contradict each other; warn of few calibration examples."""
        check_settings(before, preview.model, self.operators, OPERATORS)
        yield from self.check_keep(preview)
        if self.symmetric and self.method in ("k_quant", "hqq"):
            fix = "Set method: nearest or gptq, or leave symmetric out"
            raise ConfigError(f"`symmetric` is true, and `method: {self.method}` chooses zero points", fix=fix)
        if self.method == "hqq" and 8 in self._widths:
            problem = "`method: hqq` with 8 bits has zero points between whole numbers, which ONNX Runtime does not run"
            raise ConfigError(problem, expected="4 or 2 bits", fix="Set method: k_quant for 8 bits")
        if self.examples is not None and self.method != "gptq":
            fix = "Set method: gptq, or leave examples out"
            raise ConfigError(f"`examples` is given, and method: {self.method} reads no calibration data", fix=fix)
        used = min(len(preview.calibration), self.examples or len(preview.calibration))
        if self.method == "gptq" and used < FEW:
            yield f"calibration uses {used} examples; what gptq chooses is steadier with {FEW} or more"
        yield from self._slow()

    @property
    def _widths(self) -> set[object]:
        """The bits that some layer may have."""
        return {*self.keep.quantized(self.offer())} if self.keep else {self.bits, *self.layers.values()}

    def _slow(self) -> Iterable[str]:
        """A warning where x86 CPUs compute more slowly than in fp32, as `python benchmarks/weights.py` measures."""
        bits = self._widths
        if self.method == "hqq":
            yield "hqq is two to three times slower than fp32 on CPUs for its fractional zero points; k_quant is not"
        elif self.compute == "fp32" and bits & {8, 2}:
            yield "`compute: fp32` with 8 or 2 bits is two to five times slower than an fp32 file on CPUs; int8 is not"
        elif 2 in bits:
            yield "products with weights of 2 bits are slower than fp32 on x86 CPUs; those of 4 bits are faster"

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Which nodes have weights to quantize; warn of narrow ones, refuse a graph without any."""
        yield from reached(model, self.operators, self.exclude)
        if isinstance(model, OnnxModel) and not self.keep:
            graph = onnx.load(model.path, load_external_data=False).graph
            tables = {node.input[0] for node in graph.node if node.op_type == "Gather"}
            matrices = [t for t in graph.initializer if len(t.dims) == 2 and t.name not in tables]
            widest = max((min(tensor.dims) for tensor in matrices), default=NARROW)
            if widest < NARROW:
                yield f"its products are narrow, {widest} wide at most: in blocks they take longer than in fp32 on CPUs"

    def offer(self) -> Offer:
        """Those that blocks have."""
        return Offer(has_more=False)

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The quantized file.

        Raises:
            StageError: no node was quantized, a node's name is unknown, or no mixture of widths keeps the score.
        """
        return self.kept(model, ctx)

    def reads(self) -> Activations:
        """As it is."""
        return "float"

    def weighted(self) -> tuple[str, ...]:
        """All of its operators."""
        return self.operators

    def quantized(self, model: OnnxModel, ctx: Context, assigned: Assigned | None = None) -> OnnxModel:
        """The same, with what a search assigns."""
        left, halves = (assigned.left, assigned.halves) if assigned else ((), ())
        exclude = (*self.exclude, *left)
        if self.method != "gptq":
            return quantize(model, ctx, self.operators, exclude, partial(self._work, assigned), halves)
        with calibration(model, ctx, self.examples, self.batch_size) as data:

            def work(prepared: Prepared) -> Work:
                return replace(self._work(assigned, prepared), batches=data.batches(*prepared), count=data.count)

            return quantize(model, ctx, self.operators, exclude, work, halves, calibration_examples=data.examples)

    def _work(self, assigned: Assigned | None, prepared: Prepared) -> Work:
        exclude, without = prepared.named(self.exclude), prepared.named(assigned.left if assigned else ())
        asked = chosen(prepared.graph, self.operators, exclude)
        default = {"bits": 8 if self.keep else self.bits}
        widths = {**self.layers, **(assigned.widths if assigned else {})}
        layers = {name: {"bits": bits} for name, bits in widths.items()}
        bits, named = schemes(*prepared, asked, default, default, layers)
        bits = {name: scheme for name, scheme in bits.items() if name not in without}
        settings = self.model_dump(include={"method", "block_size", "symmetric"})
        settings |= {
            "operators": [*self.operators],
            "exclude": [*exclude, *without],
            "has_int8_inputs": self.compute == "int8",
        }
        return Work("weights", settings | {"schemes": bits, "named": [] if assigned is not None else named})
