"""How much the answers depend on the width of each layer, measured once for a model and kept in the store."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from pipeline.base.formatting import few
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.forms.graph import EXTERNAL_DATA_BYTES, output_names
from pipeline.model import OnnxModel
from stages.quantize.graphs.names import Names
from stages.quantize.mixed.effects import Activations
from stages.quantize.quantizing.quantizer import check_names, prepare, unprepared
from stages.quantize.quantizing.work import Work, worker
from stages.quantize.rounding.data import calibration
from stages.quantize.rounding.layers import Scheme
from stages.quantize.rounding.plan import labels
from stages.quantize.rounding.rounder import Entry
from stages.quantize.steps.files import Files

FILE = "sensitivity.json"
NOT_OF_STEP = ("is_prepared", "examples", "batch_size")
"""Fields that the step is not told."""


@dataclass(frozen=True)
class Row:
    """A unit of layers.

    Args:
        layer: what a user calls it.
        nodes: names of its nodes.
        operator: of the first of them.
        elements: numbers in its weights.
        effects: mean divergence of the answers by width, all else in fp32; without codebooks larger than a weight.
        examples: on which it was measured.
    """

    layer: str
    nodes: list[str]
    operator: str
    elements: int
    effects: dict[str, float]
    examples: int


@dataclass(frozen=True)
class Sensitivity:
    """What is measured.

    Args:
        widths: the integers that weights may take, by what the width is called; see `schemes_of`.
        activations: how those are rounded that a layer reads; see `Trial`.
        operators: types of the nodes with weights.
        exclude: names of nodes to leave out.
        per_channel: whether each output channel has a scale.
        reduce_range: whether 8 bits are 7.
        is_prepared: whether ONNX Runtime folds constants and norms of the graph first.
        examples: of the calibration split, at most.
        batch_size: examples at a time.
    """

    widths: Mapping[str, Scheme]
    activations: Activations
    operators: Sequence[str]
    exclude: Sequence[str] = ()
    per_channel: bool = True
    reduce_range: bool = False
    is_prepared: bool = True
    examples: int = 128
    batch_size: int = 16

    def of(self, model: OnnxModel, ctx: Context) -> list[Row]:
        """A row for each unit of layers of an fp32 file, in their order.

        Raises:
            StageError: no node has a weight of these operators, or a name of `exclude` is unknown.
        """
        parts = json.loads(json.dumps(asdict(self))) | {"output": ctx.output, "labelling": _labelling(ctx)}

        def make(to: Path) -> None:
            rows = _measured(self, model, ctx)
            (to / FILE).write_text(json.dumps([asdict(row) for row in rows]))

        folder = ctx.kept("sensitivity", model, parts, make)
        rows = [Row(**row) for row in json.loads((folder / FILE).read_text())]
        if (used := rows[0].examples) < min(self.examples, len(ctx.calibration)) and self.widths:
            ctx.warn(f"layers were compared on {used} of {self.examples} examples, whose values take 1 GiB of memory")
        return rows


def _measured(sensitivity: Sensitivity, model: OnnxModel, ctx: Context) -> list[Row]:
    ctx.directory.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(dir=ctx.directory, prefix="sensitivity-") as folder,
        worker(model) as do,
        calibration(model, ctx, sensitivity.examples, sensitivity.batch_size) as data,
    ):
        external = sum(file.stat().st_size for file in model.files()) > EXTERNAL_DATA_BYTES
        prepared = (prepare if sensitivity.is_prepared else unprepared)(model, Path(folder), do, external)
        graph, names = prepared
        check_names(sensitivity.exclude, list(names.nodes.values()))
        output = next(new for new, old in names.values.items() if old == counted_output(model, ctx))
        settings = {name: value for name, value in asdict(sensitivity).items() if name not in NOT_OF_STEP}
        settings |= {"is_reduced": settings.pop("reduce_range"), "exclude": prepared.named(sensitivity.exclude)}
        settings |= {"output": output, "labelling": _labelling(ctx)}
        work = Work("sensitivity", settings, data.batches(*prepared), data.count)
        with names.blame("the sensitivity of its layers"):
            source = Path(folder) / "prepared.onnx"  # nothing is written; of a file from outside the target is checked
            entries = do(work, Files(source, source, external)).layers
    if not entries:
        counts = few(sorted({node.op_type for node in graph.node}))
        problem = f"no node of {', '.join(sensitivity.operators)} has a constant weight; there are {counts}"
        raise StageError(problem, expected="at least one such node", fix="Name others in `operators`")
    by_name = {node.name: node for node in graph.node}
    return _distinct([_row(graph, by_name[entry["nodes"][0]], names, entry) for entry in entries])


def _row(graph: onnx.GraphProto, node: onnx.NodeProto, names: Names, entry: Entry) -> Row:
    known = list(labels(graph, node, names))
    layers = [label for label in known if f"{label}.weight" in known or f"{label}.bias" in known]
    nodes = [names.nodes[name] for name in entry["nodes"]]
    return Row(**{**entry, "layer": (layers or known)[0], "nodes": nodes})


def _distinct(rows: list[Row]) -> list[Row]:
    """The rows, with the name of a node where two layers are called alike."""
    names = [row.layer for row in rows]
    return [replace(row, layer=row.nodes[0]) if names.count(row.layer) > 1 else row for row in rows]


def counted_output(model: OnnxModel, ctx: Context) -> str:
    """The name, in the file, of the output that counts."""
    known = output_names(model.path)
    names = model.outside.outputs if model.outside else {}  # of the task, by those of a file from outside
    return next((name for name in known if ctx.output in (name, names.get(name))), known[0])


def _labelling(ctx: Context) -> dict[str, Any] | None:
    return asdict(ctx.labelling) if ctx.logits else None
