"""Models by runtimes: what each cell has, which is chosen, and how it is shown in text."""

from typing import Any

from rich.console import Console

from pipeline.records.comparison import ComparisonRecord, StrategyRecord
from pipeline.records.parts.chosen import Chosen, Pair
from pipeline.records.record import Record
from pipeline.report.matrix import Spot, figures, of_comparison, of_run
from pipeline.report.summary import comparison_summary, summary
from pipeline.report.terminal import runtimes_table
from tests.records import bench, interval, model, record, stage

SCORE = {"value": 0.9375, "verdict": "within the budget"}
BASELINE: dict[str, Any] = {
    "size_bytes": 36_000,
    "memory": {"peak_bytes": 95e6},
    "startup": {"total_s": interval((1, 0.9, 1.1))},
}
ORT, NCNN = bench(score=SCORE, baseline=BASELINE), bench("ncnn", median=(1, 0.9, 1.2), peak=38e6)
SKIPPED = {"runtime": "mnn", "threads": 1, "batch": 1, "skipped": "no layer | for <Gather>", "reasons": {}}
CHOSEN = Chosen(
    by="latency", retention=0.97, pair=Pair(runtime="ncnn", threads=1, batch=1), reason="fastest of the 2 pairs"
)


def run(*rows: dict[str, Any], **changes: Any) -> Record:
    timed = stage(1, "benchmark.latency", changed=False, latency=[*rows])
    return record(stage(0, "prune.channels"), timed, baseline=model(), **changes)


def compared(*rows: dict[str, Any], **changes: Any) -> ComparisonRecord:
    strategies = [StrategyRecord(name="baseline"), *(StrategyRecord(name=n, runtimes=[*rows]) for n in ("a", "b"))]
    given: dict[str, Any] = {
        "comparison": "c",
        "folder": "/none",
        "started": "2026-01-01T10:00:00+00:00",
        "origins": [],
    }
    return ComparisonRecord(**{**given, "strategies": strategies, **changes})


def test_a_cell_has_the_figures_of_its_row() -> None:
    assert figures(ORT) == ["9.0 kB", "300 ms [280, 320]", "2 ms [1.9, 2.1]", "80.0 MB", "0.9375", "within the budget"]
    assert figures({"p50_ms": 0.01234}) == ["-", "-", "0.01234 ms", "-", "-", "-"]


def test_a_run_has_its_models_and_the_baseline_in_the_same_runtimes() -> None:
    matrix = of_run(run(ORT, NCNN, SKIPPED, chosen=CHOSEN))
    assert (matrix.names, matrix.places) == (["baseline", "prune.channels"], ["onnxruntime", "ncnn", "mnn"])
    assert matrix.setting == "threads 1, batch 1"
    assert matrix.spots["baseline", "onnxruntime"].texts[:4] == [
        "36.0 kB",
        "1,000 ms [900, 1,100]",
        "4 ms",
        "95.0 MB",
    ]
    assert matrix.spots["baseline", "ncnn"].texts == ["-", "-", "2 ms", "-", "-", "-"]
    assert ("baseline", "mnn") not in matrix.spots
    assert [place for _, place, spot in matrix.lines() if spot.chosen] == ["ncnn"]
    assert matrix.spots["prune.channels", "mnn"] == Spot(skipped="no layer | for <Gather>")
    assert matrix.reasons == ["no layer | for <Gather>"]


def test_models_that_were_measured_before_are_rows_of_their_own() -> None:
    early = stage(1, "benchmark.latency", changed=False, latency=[bench("torch")])
    late = stage(3, "benchmark.latency", changed=False, latency=[ORT])
    matrix = of_run(record(stage(0, "prune.channels"), early, stage(2, "export.onnx"), late))
    assert matrix.names == ["baseline", "prune.channels", "export.onnx"]
    assert ("export.onnx", "torch") not in matrix.spots


def test_places_name_threads_and_batch_where_these_differ() -> None:
    matrix = of_run(run(ORT, {**ORT, "batch": 8}))
    assert (matrix.places, matrix.setting) == (
        ["onnxruntime, threads 1, batch 1", "onnxruntime, threads 1, batch 8"],
        "",
    )


def test_a_comparison_has_its_strategies_and_marks_the_pair() -> None:
    pair = CHOSEN.model_copy(update={"pair": Pair(strategy="b", runtime="ncnn", threads=1, batch=1)})
    matrix = of_comparison(compared(ORT, NCNN, chosen=pair))
    assert matrix.names == ["baseline", "a", "b"]
    assert [(name, place) for name, place, spot in matrix.lines() if spot.chosen] == [("b", "ncnn")]


def test_the_summary_has_a_row_for_each_and_the_choice() -> None:
    text = summary(run(ORT, NCNN, SKIPPED, chosen=CHOSEN))
    assert "### Runtimes, threads 1, batch 1" in text
    assert "★ ncnn, threads 1, batch 1, fastest of the 2 pairs." in text
    assert "| prune.channels | ncnn ★ | 9.0 kB | 300 ms [280, 320] | 1 ms [0.9, 1.2] | 38.0 MB | - | - |" in text
    assert "skipped: no layer &#124; for &lt;Gather&gt; |" in text
    none = CHOSEN.model_copy(update={"pair": None, "reason": "no pair keeps 0.97"})
    assert "no pair keeps 0.97." in comparison_summary(compared(ORT, NCNN, chosen=none))
    assert "### Runtimes" not in summary(run(ORT))


def test_the_terminal_has_it_at_any_width() -> None:
    matrix = of_run(run(ORT, NCNN, SKIPPED, chosen=CHOSEN))
    for width in (80, 126):
        console = Console(width=width, record=True, file=None, force_terminal=False)
        with console.capture() as captured:
            console.print(runtimes_table(matrix, width))
        text = captured.get()
        assert max(map(len, text.splitlines())) <= width
        assert all(word in text for word in ("ncnn, chosen", "38.0 MB", "0.9375", "skipped", "1 ms [0.9, 1.2]"))
    assert runtimes_table(of_run(run(ORT)), 126) is None


def test_a_row_says_whether_it_is_faster_than_the_first_runtime() -> None:
    assert (
        figures(NCNN | {"to_first": {"runtime": "onnxruntime", "verdict": "faster"}})[2]
        == f"{figures(NCNN)[2]} (faster)"
    )
