"""Floats in 16 bits: half the size, the same latency where they are only stored so."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Literal

import onnx
import torch
from pydantic import Field, JsonValue

from pipeline.base.batches import Outputs
from pipeline.base.formatting import bytes_text, few
from pipeline.base.use import nearest
from pipeline.errors import ConfigError, ForeignError, Note, ShrinkError, StageError, blame
from pipeline.forms.external_data import load_whole
from pipeline.forms.graph import EXTERNAL_DATA_BYTES, save, strip
from pipeline.forms.sandbox.session import Outside
from pipeline.measure.size import elements
from pipeline.model import Model, OnnxModel
from pipeline.stage import Context, Preview, Stage
from stages.quantize.halves.graph import floats, meant, names_in
from stages.quantize.halves.numbers import Kind
from stages.quantize.quantizing.quantizer import check_settings, name_nodes
from stages.quantize.quantizing.work import Work, worker
from stages.quantize.steps.files import Done, Files

CLOSE = 0.01
"""How far outputs may be from fp32's, as a share of their range, before a warning says so."""

BATCH = 16
MANY = 0.01
"""Share of a weight's numbers that may become zero before a warning says so; the record has all."""


class HalfPrecision(Stage):
    """An ONNX file with weights of 16 bits, that takes and gives fp32: half the size.

    Choose it where int8 costs too much accuracy. By default weights are stored in 16 bits and computed in fp32: the
    runtime makes fp32 of them when it loads the file, so latency and memory are those of fp32.

    Example:
        - {use: quantize.half, fp32: [head]}

    Reference: Paulius Micikevicius et al., "Mixed Precision Training", 2018, arXiv:1710.03740; bf16: Dhiraj Kalamkar et
    al., "A Study of BFLOAT16 for Deep Learning Training", 2019, arXiv:1905.12322.
    """

    quantizes: ClassVar[bool] = True

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
        if self.compute == "half":
            yield "ONNX Runtime computes most of fp16 in fp32 on CPUs, with casts between; `compute: fp32` has none"

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Which weights become halves; refuse a graph without any, and an unknown name."""
        if isinstance(model, OnnxModel):
            proto = onnx.load(model.path, load_external_data=False)
            if not proto.functions:
                yield from _told(proto.graph, _apart(proto.graph, self.fp32, ConfigError))

    def run(self, model: OnnxModel, ctx: Context) -> OnnxModel:
        """The file in halves.

        Raises:
            StageError: a name of `fp32` is unknown, a weight has numbers that 16 bits do not hold, or outputs become
                infinite on the calibration data.
            ForeignError: a file from outside crashed the process that converts it.
        """
        ctx.directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=ctx.directory, prefix="quantize-") as folder, worker(model) as do:
            external = sum(file.stat().st_size for file in model.files()) > EXTERNAL_DATA_BYTES
            source, target = (Path(folder) / f"{name}.onnx" for name in ("named", "half"))
            name_nodes(model, source, external)
            apart = _apart(onnx.load(source, load_external_data=False).graph, self.fp32, StageError)
            settings = {"kind": self.kind, "compute": self.compute, "apart": apart}
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
        far = self._far(model, result, ctx)
        ctx.report("half", {"fp32": [*apart], **left, "layers": [*done.layers], **far})
        return result

    def _warn(self, done: Done, ctx: Context) -> None:
        some = [entry for entry in done.layers if entry["vanishing"] > MANY * entry["numbers"]]
        if names := [f"{entry['vanishing']} of `{entry['weight']}`" for entry in some]:
            ctx.warn(f"numbers too small for {self.kind} become zero: {few(names)}")

    def _far(self, before: OnnxModel, after: OnnxModel, ctx: Context) -> dict[str, JsonValue]:
        """How far the outputs are from fp32's at most, as a share of their range; nothing without calibration data."""
        differences = []
        if self.compute == "half":  # which may crash the runtime
            after = replace(after, outside=before.outside or Outside())
        try:
            for old, new in _outputs(before, after, ctx, self.examples):
                names = [name for name, value in old.items() if value.is_floating_point()]
                differences += [difference(name, old[name], new[name]) for name in names]
        except ForeignError as error:
            fix = "Leave compute at fp32, or try `fp32: [Transpose]`, which its fusions stumble over"
            raise StageError(f"ONNX Runtime does not run the file here: {error.found}", fix=fix) from error
        finally:
            for opened in (before, after):
                opened.close()
        if not differences:
            return {}
        if max(differences) > CLOSE:
            ctx.warn(f"in {self.kind} outputs are up to {max(differences):.1%} of their range from fp32's")
        return {"difference": max(differences)}


SOME = "weights of float32, of 32 numbers or more"


def _outputs(before: OnnxModel, after: OnnxModel, ctx: Context, examples: int) -> Iterator[tuple[Outputs, Outputs]]:
    split = ctx.calibration.select(list(range(min(len(ctx.calibration), examples))))
    batches = (batch.inputs for batch in split.loader(BATCH)) if len(split) else filter(None, [before.example])
    for inputs in batches:
        yield before.predict(inputs), after.predict(inputs)


def difference(name: str, old: torch.Tensor, new: torch.Tensor) -> float:
    """How far an output is from what it was, as a share of its range. Raises StageError where it becomes infinite."""
    is_finite = old.isfinite()
    if not new[is_finite].isfinite().all():
        fix = "Name the layers that give large values in `fp32`, or leave compute at fp32"
        raise StageError(f"the output `{name}` becomes infinite on the calibration data", fix=fix)
    values = old[is_finite]
    span = float(values.max() - values.min()) if values.numel() else 0.0
    return float((new[is_finite] - values).abs().max()) / span if span > 0 else 0.0


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
