"""What files with integers answer on other CPUs, and which of their layers are at fault."""

from typing import Any

from pipeline.base.formatting import interval_text
from pipeline.measure.isa.telling import target_text
from pipeline.records.parts.stages import StageRecord
from pipeline.records.parts.targets import SaturatingLayer, TargetRecord
from pipeline.records.record import Record
from pipeline.report.html.views import Cell, Table

MOST_ROWS = 500


def elsewhere(record: Record) -> dict[str, Any]:
    """What files with integers answer on the CPUs of `target:`, and which layers of the last such file saturate."""
    stages = [(stage, stage.target) for stage in record.stages if stage.changed and stage.target]
    sentences = [f"{stage.name}: {target_text(target)}." for stage, target in stages]
    rows = [_there_cells(stage, target) for stage, target in stages if not target.reason]
    columns = ["stage", "score here", "score there", "retention there [95 %]", "lost", "gained", "decisions changed"]
    last = stages[-1][1] if stages else None
    examples = f"{last.layer_examples:,} " if last and last.layer_examples else ""
    words = (
        f"Counted on {examples}examples of validation: the share of pairs of products that saturate, what that takes "
        "off the sums, as a share of these, and what would change where the layer alone were exact."
    )
    layers = [_layer_cells(layer) for layer in (last.layers if last else [])[:MOST_ROWS]]
    titles = ["layer", "operator", "weight", "saturated", "error of sums", "decisions changed", "score gained"]
    return {
        "sentences": sentences,
        "table": Table("On the CPUs that it is for", columns, rows) if rows else None,
        "words": words if layers else "",
        "layers": Table("Layers whose sums saturate", titles, layers, frozenset({1, 2})) if layers else None,
    }


def _there_cells(stage: StageRecord, target: TargetRecord) -> list[Cell]:
    flips = [f"{target.flips.lost:,}", f"{target.flips.gained:,}"] if target.flips else ["-", "-"]
    changed = "-" if target.changed is None else f"{target.changed:.2%}"
    return [stage.name, f"{stage.score:.4f}", f"{target.score:.4f}", interval_text(target.retention), *flips, changed]


def _layer_cells(layer: SaturatingLayer) -> list[Cell]:
    effect = ["-" if value is None else f"{value:.2%}" for value in (layer.changed,)]
    gain = "-" if layer.gain is None else f"{layer.gain:+.4f}"
    size = "x".join(map(str, layer.shape))
    place = f"{layer.place}. {layer.node}"
    return [place, layer.operator, size, f"{layer.saturated:.3%}", f"{layer.error:.2%}", *effect, gain]
