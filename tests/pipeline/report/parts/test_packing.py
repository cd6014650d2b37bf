"""Bytes by encoding, from the report of a stage that packed."""

import pytest

from pipeline.records.record import Record
from pipeline.report.parts.packing import by_encoding, cost_text, packing, packing_cells, packing_text
from tests import records
from tests.aliases import Logs

FIGURES = records.packing()


def packed(**changes: object) -> Record:
    report = records.packing(**changes)  # type: ignore[arg-type]
    return records.record(records.stage(0, "quantize.pack", reports={"packing": report}), records.stage(1, "x"))


def test_the_bytes_of_all_encodings_and_the_graph_are_those_of_the_file() -> None:
    report = packing(packed())
    assert report
    rows = by_encoding(report)
    assert sum(row.after for row in rows) == FIGURES["bytes"]["after"]
    assert sum(row.tensors for row in rows) == 12
    assert [row.name for row in rows] == ["float32", "int4", "codebook", "graph"]
    assert packing_cells(rows[1])[:4] == ["int4", "4", f"{9000 + 2250 + 1285 + 900:,}", "4.00"]
    assert packing_cells(rows[-1]) == ["graph", "-", "-", "-", "-", "3.1 kB"]


def test_bytes_that_are_neither_a_tensors_nor_the_graphs_are_shown_as_such() -> None:
    after = FIGURES["bytes"]["after"] + 70
    report = packing(packed(bytes={"before": 1, "after": after}))
    assert report
    assert (by_encoding(report)[-1].name, by_encoding(report)[-1].after) == ("other", 70)
    assert sum(row.after for row in by_encoding(report)) == after


def test_the_last_stage_that_packed_is_shown() -> None:
    record = packed()
    record.stages[1].reports["packing"] = records.packing(count=1)
    assert len(packing(record).tensors) == 1  # type: ignore[union-attr]


def test_a_line_tells_it_and_a_run_that_packed_nothing_has_none() -> None:
    start = f"Packed, {FIGURES['bytes']['before'] / 1000:.1f} kB to {FIGURES['bytes']['after'] / 1000:.1f} kB: float32 "
    assert packing_text(packed()).startswith(start)
    assert packing_text(packed()).endswith(", graph 3.1 kB")
    assert packing_text(records.record(records.stage())) == ""


def test_what_was_not_measured_is_not_told() -> None:
    report = packing(packed(load_ms=None, peak_bytes=None))
    assert report
    assert cost_text(report) == ""
    unknown = packing(packed(load_ms=None, peak_bytes=None, peak_bytes_reason="the system does not tell"))
    assert unknown
    assert cost_text(unknown) == "Memory at its peak is not known: the system does not tell."


@pytest.mark.parametrize(
    "report", ["text", {}, {**FIGURES, "graph_bytes": -1}, {**FIGURES, "tensors": [{"name": "x"}]}]
)
def test_a_report_of_another_kind_is_left_out_with_a_warning(report: object, caplog: Logs) -> None:
    odd = {**FIGURES, **report} if isinstance(report, dict) and report else report
    stage = records.stage(0, "my_pack", reports={"packing": odd})
    assert packing(records.record(stage)) is None
    assert "my_pack: its report of packing is not shown: " in caplog.text
