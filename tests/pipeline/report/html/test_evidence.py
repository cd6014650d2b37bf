"""The figures of a run: what they show, and what stands for what is missing."""

from pipeline.records.record import Record
from pipeline.report.html.evidence import trajectory


def after_a_stage(figure: dict[str, object]) -> dict[str, object]:
    (trace,) = [trace for trace in figure["data"] if trace.get("meta") == "after a stage"]  # type: ignore[attr-defined]
    return dict(trace)


def test_stages_that_change_no_figure_share_a_point(record: Record) -> None:
    same = {"size_bytes": record.stages[0].size_bytes, "retention": record.stages[0].retention}
    record.stages[1] = record.stages[1].model_copy(update=same)
    figure = trajectory(record)
    assert after_a_stage(figure.plots[0].figure)["text"] == ["distill.logits<br>→ export.onnx"]
    assert len(figure.table.rows) == 3


def test_without_retention_the_score_is_drawn(record: Record) -> None:
    record.stages[1].retention = None
    found = after_a_stage(trajectory(record).plots[0].figure)
    assert found["y"] == [record.stages[0].score]  # and the export's, which is the same
