import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from pipeline.records.record import Failure
from pipeline.report.markdown import LONGEST
from pipeline.report.summary import comparison_summary, summary
from tests.aliases import Make, Patch
from tests.records import gate, packing

GITHUB = MarkdownIt("commonmark").enable("table")
HOSTILE = "<script>alert(1)</script> a|b `c` [d](http://e)\n# f"


def tables(markdown: str) -> list[list[list[str]]]:
    """The cells of each table."""
    found: list[list[list[str]]] = []
    for token in GITHUB.parse(markdown):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level >= 3:
            found[-1][-1].append(token.content)
    return found


def headings(markdown: str) -> list[str]:
    return [after.content for token, after in pairwise(GITHUB.parse(markdown)) if token.type == "heading_open"]


def fences(markdown: str) -> list[str]:
    return [token.content for token in GITHUB.parse(markdown) if token.type == "fence"]


@pytest.mark.parametrize(("verdict", "title"), [
    ("pass", "✅ chain: pass"), ("fail", "❌ chain: fail"), ("inconclusive", "❔ chain: inconclusive"),
])  # fmt: skip
def test_the_verdict_comes_first(record: Make, verdict: str, title: str) -> None:
    assert headings(summary(record(verdict=verdict)))[0] == title


def test_a_run_without_a_budget_says_so_and_has_no_gates(record: Make) -> None:
    made = headings(summary(record(gates=[], verdict=None)))
    assert made[0] == "chain: no budget, no verdict"
    assert "Gates" not in made


def test_a_gate_is_a_row_with_what_it_counts_as_and_its_fix(record: Make) -> None:
    gates = [gate("fail", fix="Train for longer"), gate("skipped", name="parity", counts_as="warn")]
    found = tables(summary(record(gates=gates)))[0]
    assert found[1] == ["retention", "❌ fail", "retention is 0.9", "Train for longer"]
    assert found[2][:2] == ["parity", "⏭️ skipped, counts as warn"]


def test_the_stages_have_the_figures_of_the_record(record: Make) -> None:
    _, stages, _ = tables(summary(record()))
    assert stages[1] == ["baseline", "12.0 kB", "1.0x", "2.7 k", "157.0 k", "0.9000", "-", ""]
    assert stages[2][:3] == ["quantize.static", "3.0 kB", "4.0x"]
    assert stages[3][6:] == ["0.980 [0.970, 0.990]", "0.50 [0.40, 0.60]"]
    assert "**12.0 kB → 3.0 kB**, ratio 4.0x, retention 0.980 [0.970, 0.990] on 400 test examples" in summary(record())


def test_the_three_classes_that_lost_most_are_named_worst_first(record: Make) -> None:
    *_, classes = tables(summary(record()))
    assert [row[0] for row in classes[1:]] == ["class 1", "class 3", "class 4"]
    assert classes[1][3:] == ["0.500 [0.250, 0.600]", "1"]


def test_it_says_how_to_reproduce_and_to_go_on(record: Make, monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    again, on = fences(summary(record()))
    assert again.splitlines() == [
        f"git checkout {'a' * 40}",
        "shrink run 'my chain.yaml' --strategy 'a + b' --set stages.0.epochs=2 --set seed=7",
    ]
    assert on.splitlines() == ["shrink resume runs/one", "shrink report runs/one", "shrink package runs/one"]


def test_a_folder_with_changes_is_not_told_to_be_checked_out(record: Make) -> None:
    made = summary(record(environment={"git_commit": "a" * 40, "git_dirty": True}))
    assert "git checkout" not in made
    assert "Files differed from their commit" in made


def test_a_run_that_failed_says_where_and_why_and_that_the_model_is_not_the_last(record: Make) -> None:
    failure = Failure(where="stages[1] (prune.channels)", message="it | broke\n```\nTraceback", exit_code=3)
    made = summary(record(failure=failure, gates=[], verdict=None))
    assert headings(made)[0] == r"❌ chain: failed in stages\[1] (prune.channels)"
    assert fences(made)[0] == failure.message + "\n"
    assert "It is not the last of the chain." in made
    assert "shrink resume" in made
    assert "shrink package" not in made  # which wants the last model
    stopped = failure.model_copy(update={"exit_code": 143})
    assert ": stopped in " in headings(summary(record(failure=stopped, verdict=None)))[0]


def test_a_record_with_nothing_in_it_gives_a_summary(record: Make) -> None:
    failure = Failure(where="", message="", exit_code=4)
    bare: dict[str, Any] = {"baseline": None, "stages": [], "gates": [], "verdict": None, "origin": None}
    made = summary(record(**bare, failure=failure, environment={}))
    assert headings(made)[0] == "❌ chain: failed in the run"
    assert not tables(made)


def test_text_of_a_record_stays_text(record: Make) -> None:
    shown = record(
        config={"name": HOSTILE},
        gates=[gate("fail", name=HOSTILE, message=HOSTILE, fix=HOSTILE)],
        verdict="fail",
        warnings=[HOSTILE],
        notes=[HOSTILE],
    )
    found = shown.model_copy(update={"stages": [shown.stages[0], shown.stages[1].model_copy(update={"name": HOSTILE})]})
    html = GITHUB.render(summary(found))
    assert "<script" not in html
    assert "href" not in html
    assert html.count("<table>") == 3
    plain = re.sub(r"<[^>]+>", "", html)
    assert plain.count("a|b `c` [d](http://e) # f") == 7


def test_it_is_capped_and_says_so(record: Make) -> None:
    long = record()
    stages = [long.stages[0].model_copy(update={"name": f"stage {i}"}) for i in range(2000)]
    made = summary(long.model_copy(update={"stages": stages}))
    assert len(made) <= LONGEST
    assert "Cut here" in made
    assert headings(made)[:3] == ["✅ chain: pass", "Gates", "Stages"]


def test_a_comparison_has_the_choice_first_and_a_row_a_strategy(comparison: Make) -> None:
    made = comparison_summary(comparison())
    assert headings(made)[0] == "★ quantize"
    assert "smallest of the strategies that keep 0.95" in made
    (table,) = tables(made)
    assert [row[0] for row in table] == ["strategy", "baseline", "quantize ★ ●", "prune"]
    assert table[2][5:9] == ["0.9000 ± 0.0100", "0.960 [0.950, 0.970]", "0.980 [0.970, 0.990]", "0.50 [0.40, 0.60]"]
    assert (table[2][9:], table[3][1:9]) == (["12 s", "pass", "4x"], ["-"] * 8)


def test_a_comparison_says_what_is_alike_and_what_failed(comparison: Make, monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = comparison_summary(comparison())
    assert "- quantize and prune cannot be told apart\n" in made
    assert "- prune, seed 1: it broke (exit code 3)\n" in made
    assert fences(made) == ["shrink compare strategies.yaml\nshrink report runs/compared\n"]


def test_a_comparison_without_a_choice_says_why(comparison: Make) -> None:
    made = comparison_summary(comparison(choice=None, choice_reason="none keeps 0.95", strategies=[]))
    assert headings(made)[0] == "No strategy is chosen"
    assert "none keeps 0.95" in made


def test_text_of_a_comparison_stays_text(comparison: Make) -> None:
    base = comparison()
    hostile = base.strategies[1].model_copy(update={"name": HOSTILE, "claim": HOSTILE})
    strategies = [base.strategies[0], hostile, base.strategies[2]]
    made = comparison(strategies=strategies, choice=HOSTILE, choice_reason=HOSTILE, warnings=[HOSTILE])
    html = GITHUB.render(comparison_summary(made))
    assert "<script" not in html
    assert "href" not in html
    assert re.sub(r"<[^>]+>", "", html).count("a|b `c` [d](http://e) # f") == 5


def test_a_packed_file_has_its_bytes_by_encoding(record: Make) -> None:
    packed = record()
    packed.stages[0].reports["packing"] = packing()
    made = summary(packed)
    assert headings(made)[3] == "Bytes by encoding"
    table = tables(made)[2]
    assert table[0] == ["encoding", "tensors", "elements", "bits per element", "before", "after"]
    assert [row[0] for row in table[1:]] == ["float32", "int4", "codebook", "graph"]
    assert "Bytes by encoding" not in headings(summary(record()))
