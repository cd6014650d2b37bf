"""The terminal, Markdown and HTML show the same columns and cells, each with its own line breaks."""

import io
import re

from rich.console import Console

from pipeline.report.columns import STAGES, STRATEGIES, stage_cells, strategy_cells
from pipeline.report.html.comparison import strategies_table
from pipeline.report.html.evidence import stages_table
from pipeline.report.summary import comparison_summary, summary
from pipeline.report.terminal import show, show_comparison
from tests.aliases import Make


def printed(show: Make, record: object) -> str:
    out = io.StringIO()
    show(record, Console(file=out, width=250))
    return out.getvalue()


def test_all_media_show_the_cells_of_a_stage(record: Make) -> None:
    run = record()
    stage = run.stages[-1]
    cells = ["3.0 kB", "4.0x", "2.7 k", "157.0 k", "0.9000", "0.980 [0.970, 0.990]", "0.50 [0.40, 0.60]"]
    assert stage_cells(stage) == cells
    terminal = printed(show, run)
    assert all(title in terminal for title in STAGES)
    assert re.search(r" │ +".join(map(re.escape, cells)), terminal)
    assert f"| {' | '.join(STAGES[:-1])} |" in summary(run)
    assert f"| benchmark.latency | {' | '.join(cells)} |" in summary(run)
    table = stages_table(run)
    assert tuple(table.columns) == STAGES
    assert [list(row[1:8]) for row in table.rows if row[0] == stage.name] == [cells]


def test_all_media_show_the_cells_of_a_strategy(comparison: Make) -> None:
    compared = comparison()
    figures = ["3.0 kB", "4.0x", "2.7 k", "157.0 k", "0.9000 ± 0.0100"]
    cells = [*figures, "0.960 [0.950, 0.970]", "0.980 [0.970, 0.990]", "0.50 [0.40, 0.60]"]
    assert strategy_cells(compared.strategies[1]) == cells
    terminal = printed(show_comparison, compared)
    assert all(part in terminal for cell in cells for part in re.split(r" ± | (?=\[)", cell))
    assert f"| {' | '.join(STRATEGIES)} |" in comparison_summary(compared)
    assert f"| quantize ★ ● | {' | '.join(cells)} | 12 s | pass | 4x |" in comparison_summary(compared)
    table = strategies_table(compared)
    assert tuple(table.columns) == STRATEGIES
    assert [list(row[1:9]) for row in table.rows if row[0] == "quantize"] == [cells]
