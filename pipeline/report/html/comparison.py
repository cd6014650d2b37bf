"""The page of a comparison, section by section."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.base.formatting import bytes_text, interval_text
from pipeline.measure.strategies.pairwise import sentences
from pipeline.records.comparison import ComparisonRecord, PairTest, StrategyRecord
from pipeline.report import commands
from pipeline.report.columns import STRATEGIES, strategy_cells
from pipeline.report.html.front import front
from pipeline.report.html.headline import WORDS, gate_view, setting_of
from pipeline.report.html.run import ground
from pipeline.report.html.text import count_of, duration_text, joined, matrix_parts, sentence, span_text, times_text
from pipeline.report.html.views import Cell, Judgement, Link, Mark, Section, Table, Tile
from pipeline.report.matrix import of_comparison

MOST_TESTS = 500


def sections(record: ComparisonRecord, folder: Path) -> list[Section]:
    """All that there is to show of a comparison, in reading order; links are relative to the page's folder."""
    several = f" The score is the mean ± deviation over {len(record.seeds)} seeds." if len(record.seeds) > 1 else ""
    about = f"The front and the choice are made on validation; test is shown beside.{several}"
    all_sections = [
        Section("front", "The front", {"figures": front(record), "text": _front_text(record)}),
        Section("strategies", "Strategies", {"table": strategies_table(record), "text": about}),
        Section("budget", "The budget", {"table": _budget(record)}),
        Section("runtimes", "Runtimes", matrix_parts(of_comparison(record), record.chosen)),
        Section("pairs", "What can be told apart", _pairs(record)),
        Section("failures", "Failures", {"table": _failures(record)}),
        Section("said", "Warnings and notes", {"warnings": record.warnings, "notes": _notes(record)}),
        Section("runs", "Runs", {"table": _runs(record, folder)}),
        Section("data", "Data and environment", ground(record.data, record.environment, record.test_uses)),
        Section("again", "Compare again", _again(record)),
    ]
    return [section for section in all_sections if any(v for k, v in section.parts.items() if k != "text")]


def head(record: ComparisonRecord) -> dict[str, Any]:
    """The choice and why, its figures, and what the page is called."""
    chosen = next((s for s in record.strategies if s.name == record.choice), None)
    word = f"Chosen: {record.choice}" if record.choice is not None else "No strategy is chosen"
    seeds = f"seeds {', '.join(map(str, record.seeds))}" if len(record.seeds) > 1 else ""
    examples = f"{record.validation_samples:,} validation and {record.test_samples:,} test examples"
    started = record.started.replace("T", " ").replace("+00:00", " UTC")
    return {
        "title": record.comparison,
        "kind": "comparison",
        "about": [text for text in (started, seeds, examples) if text],
        "judgement": Judgement("chosen" if chosen else "none", word, sentence(record.choice_reason)),
        "failure": "",
        "tiles": _tiles(record.strategies[0], chosen) if chosen and record.strategies else [],
    }


def strategies_table(record: ComparisonRecord) -> Table:
    """A row for the baseline and each strategy."""
    rows = [_row(strategy) for strategy in record.strategies]
    claims = any(strategy.claim for strategy in record.strategies)
    columns = STRATEGIES if claims else STRATEGIES[:-1]
    return Table("Strategies", columns, [row[: len(columns)] for row in rows], frozenset({10, 11}))


def _row(strategy: StrategyRecord) -> list[Cell]:
    seconds = duration_text(strategy.seconds)
    return [strategy.name, *strategy_cells(strategy), seconds, _verdict(strategy), strategy.claim or "-"]


def _verdict(strategy: StrategyRecord) -> Cell:
    """The verdicts of its runs as one word; the worst colours it."""
    if strategy.failures and not strategy.verdicts:
        return Mark("Failed", "failed")
    verdicts = list(dict.fromkeys(verdict for verdict in strategy.verdicts if verdict))
    if not verdicts:
        return "-"
    worst = next(kind for kind in ("fail", "inconclusive", "pass") if kind in verdicts)
    counts = [f"{WORDS[kind]} {strategy.verdicts.count(kind)}" for kind in verdicts]
    return Mark(WORDS[worst] if len(verdicts) == 1 else ", ".join(counts), worst)


def _budget(record: ComparisonRecord) -> Table | None:
    """Each limit of the budget and what each strategy makes of it, what is not kept first."""
    rows: list[Sequence[Cell]] = [
        [strategy.name, view.name, Mark(view.word, view.kind), f"{view.message}. {view.fix}".removesuffix(". ")]
        for strategy in record.strategies
        for view in sorted(map(gate_view, strategy.gates), key=lambda view: view.kind == "pass")
    ]
    return Table("Limits", ["strategy", "limit", "verdict", "why"], rows, frozenset({1, 2, 3})) if rows else None


def _front_text(record: ComparisonRecord) -> str:
    names = [strategy.name for strategy in record.strategies if strategy.on_front]
    if not names:
        return ""
    sentence = f"On the front: {joined(names)}." if len(names) > 1 else f"On the front is {names[0]} alone."
    return f"{sentence} No other strategy is at least as good in {joined(record.axes)} and better in one of them."


def _pairs(record: ComparisonRecord) -> dict[str, Any]:
    """What is said of each pair, those that differ first, and all tests."""
    doubtful = [test for test in record.tests if not test.distinguishable]
    doubtful_pairs = {(test.first, test.second) for test in doubtful}
    ordered = sorted(record.tests, key=lambda test: not test.distinguishable)
    lines = [f"{text}." for text in sentences(ordered, record.test_samples, shares=_are_shares(record))]
    lines += [f"{a} and {b} cannot be told apart." for a, b in record.indistinguishable if (a, b) not in doubtful_pairs]
    pairs, clear = count_of(len(record.tests), "pair"), len(record.tests) - len(doubtful)
    text = f"{clear} of {pairs} can be told apart at the 5 % level after Holm's correction." if record.tests else ""
    rows = [_test(test) for test in record.tests[:MOST_TESTS]]
    columns = ["pair", "difference of score [95 %]", "p", "p, Holm", "told apart"]
    table = Table("Paired tests on the test split", columns, rows, frozenset({4})) if rows else None
    return {"pairs": lines, "tests": table, "text": text}


def _notes(record: ComparisonRecord) -> list[str]:
    """The notes, without the sentences on pairs, which have a section of their own."""
    of_pairs = [sentences(record.tests, record.test_samples, shares=shares) for shares in (True, False)]
    return [note for note in record.notes if not any(note in texts for texts in of_pairs)]


def _are_shares(record: ComparisonRecord) -> bool:
    return all(0 <= strategy.score.mean <= 1 for strategy in record.strategies if strategy.score)


def _test(test: PairTest) -> list[Cell]:
    cell = Mark("yes", "pass") if test.distinguishable else "no"
    name = f"{test.first} - {test.second}"
    return [name, interval_text(test.difference, 4), f"{test.p:.3g}", f"{test.p_adjusted:.3g}", cell]


def _failures(record: ComparisonRecord) -> Table | None:
    rows: list[Sequence[Cell]] = [
        [strategy.name, seed, failure.where or "-", failure.message, str(failure.exit_code)]
        for strategy in record.strategies
        for seed, failure in strategy.failures.items()
    ]
    columns = ["strategy", "seed", "where", "message", "exit code"]
    return Table("Failures", columns, rows, frozenset({2, 3})) if rows else None


def _runs(record: ComparisonRecord, folder: Path) -> Table | None:
    """Each strategy's runs, with links to their pages where these are."""
    runs = Path(record.folder).parent
    rows: list[Sequence[Cell]] = [
        [name, strategy.name]
        for strategy in record.strategies
        for name in (_link(runs, run, folder) for run in strategy.runs)
    ]
    return Table("Runs", ["run", "strategy"], rows, frozenset({1})) if rows else None


def _link(runs: Path, run: str, folder: Path) -> Cell:
    page = runs / run / "report.html"
    if Path(run).name != run or run in ("", ".", "..") or not page.is_file():
        return run
    return Link(run, quote(os.path.relpath(page, folder).replace(os.sep, "/")))


def _tiles(baseline: StrategyRecord, chosen: StrategyRecord) -> list[Tile]:
    tiles = []
    if chosen.size_bytes is not None:
        before = bytes_text(baseline.size_bytes) if baseline.size_bytes else ""
        tiles.append(Tile("Size", bytes_text(chosen.size_bytes), before, times_text(chosen.compression_ratio or 1)))
    for name, retention in (("validation", chosen.validation_retention), ("test", chosen.retention)):
        if retention:
            tiles.append(Tile(f"Retention on {name}", f"{retention.value:.3f}", note=span_text(retention)))
    for timing in chosen.latency[:1]:
        notes = timing.verdict, span_text(timing, 2), setting_of(timing.model_dump())
        tiles.append(Tile("Latency ratio", f"{timing.value:.2f}", note="; ".join(filter(None, notes))))
    if chosen.seconds is not None:
        tiles.append(Tile("Training time", duration_text(chosen.seconds)))
    return tiles


def _again(record: ComparisonRecord) -> dict[str, Any]:
    return {"commands": commands.compare_again(record), "note": commands.code_note(dict(record.environment))}
