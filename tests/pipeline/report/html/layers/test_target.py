"""What is answered on other CPUs, and which layers saturate there."""

from typing import Any

from pipeline.base.estimate import Estimate
from pipeline.records.figures import metrics
from pipeline.records.parts.models import Flips
from pipeline.records.parts.targets import SaturatingLayer, TargetRecord
from pipeline.report.html.layers.target import elsewhere
from tests import records


def test_what_is_answered_elsewhere_has_a_row_a_stage_and_a_row_a_layer() -> None:
    worst: dict[str, Any] = {"node": "k", "operator": "QLinearConv", "place": 2, "shape": [16, 8, 3, 3]}
    target = TargetRecord(
        isa="avx2",
        score=0.8,
        drop=Estimate(value=0.1, low=0.05, high=0.15),
        flips=Flips(lost=41, gained=1),
        changed=0.125,
        layers=[SaturatingLayer(**worst, saturated=0.02, error=0.14, changed=0.05, gain=0.04)],
        layer_examples=256,
        reduce_range_helps=True,
    )
    quantized = records.stage(0, "q", target=target)
    parts = elsewhere(records.record(quantized, records.stage(2, "benchmark.latency", target=target, changed=False)))
    assert parts["table"].rows == [["q", "0.9000", "0.8000", "-", "41", "1", "12.50%"]]
    assert parts["layers"].rows == [["2. k", "QLinearConv", "16x8x3x3", "2.000%", "14.00%", "5.00%", "+0.0400"]]
    assert parts["sentences"] == [
        "q: on avx2, emulated, it scores 0.8000, 10.0 points [5.0, 15.0] less than here (41 lost, 1 gained; 12.50% of "
        "decisions are others); sums saturate most in `k` (product 2, QLinearConv, 16x8x3x3), by 14.0%. "
        "`reduce_range: true` avoids that at the same size."
    ]
    figures = {name: value for name, value in metrics(quantized).items() if name.startswith("target.")}
    assert figures["target.avx2.score"] == 0.8
    assert (figures["target.avx2.drop"], figures["target.avx2.drop_high"]) == (0.1, 0.15)
    assert (figures["target.avx2.flips_lost"], figures["target.avx2.changed"]) == (41, 0.125)


def test_what_is_not_known_elsewhere_has_its_reason_alone() -> None:
    unknown = TargetRecord(isa="avx2", reason="`a` is DynamicQuantizeLSTM")
    parts = elsewhere(records.record(records.stage(1, "r", target=unknown)))
    assert parts["sentences"] == ["r: what it answers on avx2 is not known: `a` is DynamicQuantizeLSTM."]
    assert not parts["table"]
    assert not any(elsewhere(records.record(records.stage())).values())
