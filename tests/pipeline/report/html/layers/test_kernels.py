from pathlib import Path

from pipeline.base.estimate import Estimate
from pipeline.records.parts.kernels import Fallback, KernelAlarm, Kernels, OperatorUse
from pipeline.report.html.layers.kernels import kernel_tables, kernels_text
from pipeline.report.html.page import write_report
from tests.records import model, record, stage

KERNELS = Kernels(
    operators=[
        OperatorUse(operator="QLinearConv", count=3, integer=True, macs=1_200_000, time_share=0.7),
        OperatorUse(operator="Einsum", count=1, integer=False, macs=None, time_share=None),
    ],
    integer_macs=0.96,
    ratio=Estimate(value=0.5, low=0.4, high=0.6),
    alarms=[KernelAlarm(pattern="a GRU", nodes=["a", "b", "c", "d"], why="it <is> one", remedy="Leave it")],
    floats=[Fallback(nodes=["conv1"], operator="Conv", why="nothing quantizes it")],
)


def test_operators_alarms_and_floats_are_tables() -> None:
    operators, alarms, floats = kernel_tables(KERNELS)
    assert (
        operators.caption
        == "In ONNX Runtime here: 96% of MACs in integers, 0.50 [0.40, 0.60] of the time of what came in"
    )
    assert operators.rows == [["QLinearConv", "3", "integers", "1.2 M", "70.0%"], ["Einsum", "1", "floats", "-", "-"]]
    assert alarms.rows == [["a GRU", "a, b, c and 1 more", "it <is> one", "Leave it"]]
    assert floats.rows == [["Conv", "conv1", "nothing quantizes it"]]


def test_what_there_is_not_has_no_table() -> None:
    bare = KERNELS.model_copy(update={"alarms": [], "floats": [], "integer_macs": None, "ratio": None})
    assert len(kernel_tables(bare)) == 1
    assert kernels_text(bare) == "share of MACs in integers not known, not timed"


def test_the_page_shows_them_with_the_stage(tmp_path: Path) -> None:
    whole = record(stage(0, "quantize.static", kernels=KERNELS), stage(1, "quantize.pack"), baseline=model())
    text = write_report(whole, tmp_path / "report.html").read_text()
    assert "In ONNX Runtime here: 96% of MACs in integers" in text
    assert "it &lt;is&gt; one" in text
