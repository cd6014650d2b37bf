"""The pages as text: what stands where, for whole records and for poor ones."""

import gzip
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.offline
import pytest

from pipeline.measure.strategies.pairwise import sentences
from pipeline.records.comparison import ComparisonRecord
from pipeline.records.parts.gates import GateRecord
from pipeline.records.record import Failure, Record
from pipeline.report.html.layers.bytes import bytes_by_layer
from pipeline.report.html.page import HERE, PLOTLY, coded, write_comparison, write_report
from tests.aliases import Make
from tests.records import interval, packing

STARTED = "2026-01-01T00:00:00+00:00"


class Outline(HTMLParser):
    """Headings with their levels, text by section, links, and what a page asks for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[tuple[int, str]] = []
        self.sections: dict[str, str] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.section, self.level, self.skipped = "", 0, ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "section":
            self.section = dict(attrs).get("id") or ""
        if re.fullmatch(r"h\d", tag):
            self.level = int(tag[1])
            self.headings.append((self.level, ""))
        self.skipped = tag if tag in ("script", "style") else self.skipped

    def handle_endtag(self, tag: str) -> None:
        self.level = 0 if re.fullmatch(r"h\d", tag) else self.level
        self.skipped = "" if tag == self.skipped else self.skipped
        if tag in ("td", "th"):
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        if self.skipped:
            return
        self.sections[self.section] = self.sections.get(self.section, "") + data
        if self.level:
            self.headings[-1] = (self.level, self.headings[-1][1] + data)

    def words(self, section: str) -> str:
        return " ".join(self.sections.get(section, "").split())


def outline(page: Path) -> Outline:
    return Outline(page.read_text("utf-8"))


def figures(page: Path) -> dict[str, list[dict[str, object]]]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page.read_text("utf-8"), re.S)
    return json.loads(found[1])


def test_sections_are_in_order_of_reading(record: Record, enriched: Make, tmp_path: Path) -> None:
    page = write_report(enriched(record), tmp_path / "report.html")
    assert page == tmp_path / "report.html"
    assert [key for key in outline(page).sections if key] == [
        *("verdict", "chain", "trajectory", "effects", "runtimes", "latency", "classes", "lost", "bytes", "training"),
        *("gain", "said", "settings", "data", "again"),
    ]


def test_a_real_run_shows_its_own_figures(record: Record, tmp_path: Path) -> None:
    page = write_report(record, tmp_path / "report.html")
    found, last = outline(page), record.stages[-1]
    assert f"{last.retention.value:.3f}" in found.words("verdict")
    assert f"{last.retention.low:.3f} to {last.retention.high:.3f}" in found.words("verdict")
    for name in ("baseline", "distill.logits", "export.onnx"):
        assert name in found.words("chain")
    assert len(figures(page)["trajectory"]) == 1
    sizes = {figure.key: sum(area.size for area in figure.areas) for figure in bytes_by_layer(record)}
    assert sizes == {"bytes-baseline": record.baseline.size_bytes, "bytes-final": last.size_bytes}
    assert "%, " in found.words("bytes") or "conv" in found.words("bytes")


def test_gates_come_with_message_and_fix(record: Record, enriched: Make, tmp_path: Path) -> None:
    told = outline(write_report(enriched(record), tmp_path / "report.html")).words("verdict")
    assert "Fail The model does not keep to its budget." in told
    assert "Of 4 limits, 1 is kept, 1 is not kept, 1 is undecided and 1 is not looked at." in told
    assert "retention Inconclusive retention is 0.970 [0.940, 1.000], the limit 0.95" in told
    assert "What to do: Take 900 test examples instead of 128" in told
    assert "latency Skipped, counts as warn no stage measured it" in told


@pytest.mark.parametrize(
    ("verdict", "word"), [("pass", "Pass"), ("inconclusive", "Inconclusive"), (None, "No verdict")]
)
def test_the_verdict_is_a_word(record: Record, tmp_path: Path, verdict: str | None, word: str) -> None:
    record.verdict = verdict  # type: ignore[assignment]
    assert outline(write_report(record, tmp_path / "r.html")).words("verdict").startswith(word)


def test_a_run_that_failed_in_its_second_stage(record: Record, tmp_path: Path) -> None:
    del record.stages[1:]
    message = "stages[1] (export.onnx): it cannot be exported"
    record.failure = Failure(where="stages[1] (export.onnx)", message=message, exit_code=3)
    found = outline(write_report(record, tmp_path / "r.html"))
    assert found.words("verdict").startswith("The run failed It ended in stages[1] (export.onnx), so no verdict.")
    assert message in found.words("verdict")
    assert "export.onnx failed here" in found.words("chain")


def test_a_run_that_was_stopped_before_its_baseline(record: Record, tmp_path: Path) -> None:
    record.baseline, record.stages, record.flipped, record.gates = None, [], None, []
    record.failure = Failure(where="baseline[0] (train.supervised)", message="stopped", exit_code=130)
    found = outline(write_report(record, tmp_path / "r.html"))
    assert "Stopped The run was stopped in baseline[0]" in found.words("verdict")
    assert "baseline stopped here" in found.words("chain")
    assert "distill.logits not run" in found.words("chain")
    assert "shrink resume" in found.words("again")
    assert "shrink package" not in found.words("again")


def test_a_record_with_the_least_gives_a_page(tmp_path: Path) -> None:
    record = Record(run="r", folder=str(tmp_path / "gone"), started=STARTED, config={}, seed=0, data={}, environment={})
    assert "No verdict" in outline(write_report(record, tmp_path / "r.html")).words("verdict")
    assert "Plotly, Inc." not in (tmp_path / "r.html").read_text("utf-8")  # no figure, no library


def test_a_run_whose_files_are_gone_or_damaged_still_has_its_figures(record: Record, tmp_path: Path) -> None:
    (Path(record.folder) / record.stages[-1].file).write_bytes(b"\xff" * 100)
    (Path(record.folder) / record.baseline.file).unlink()  # type: ignore[union-attr]
    for image in (Path(record.folder) / "examples").glob("*.png"):
        image.write_bytes(b"no image")
    found = outline(write_report(record, tmp_path / "r.html"))
    assert "bytes" not in found.sections
    assert "The image is not in the run folder, or not what was written." in found.words("lost")


def test_an_image_outside_the_run_folder_is_not_shown(record: Record, enriched: Make, tmp_path: Path) -> None:
    record = enriched(record)
    secret = tmp_path / "secret.png"
    secret.write_bytes((Path(record.folder) / "examples" / "17.png").read_bytes())
    shown = record.flipped.examples[0]  # type: ignore[union-attr]
    for file, count in (("examples/17.png", 1), ("../../secret.png", 0), (str(secret), 0)):
        record.flipped.examples = [shown.model_copy(update={"file": file})]  # type: ignore[union-attr]
        assert write_report(record, tmp_path / "r.html").read_text("utf-8").count("<img class=") == count


def test_latency_without_distributions_has_a_table(record: Record, enriched: Make, tmp_path: Path) -> None:
    record = enriched(record)
    for row in record.stages[-1].latency:
        row.pop("distribution_ms", None)
    page = write_report(record, tmp_path / "r.html")
    assert "latency" not in figures(page)
    assert "onnxruntime, threads 2, batch 1" in outline(page).words("latency")
    assert "No p99: 800 samples; it needs 1000." in outline(page).words("latency")


def test_throughput_energy_and_bounds_are_told(record: Record, enriched: Make, tmp_path: Path) -> None:
    record = enriched(record)
    loops = [{"per_second": each, "concurrency": n} for n, each in ((1, interval((1234.4, 1200, 1300))), (4, None))]
    more = {"percentiles": "early stopping", "throughput": loops, "energy": {"joules": 0.01234, "source": "RAPL"}}
    record.stages[-1].latency[0] |= more
    told = outline(write_report(record, tmp_path / "r.html")).words("latency")
    assert "P90 and p99 are upper bounds by early stopping." in told
    assert "1,234 [1,200, 1,300] examples a second with 1 request at a time." in told
    assert "4 requests at a time" not in told
    assert "0.0123 J an inference" in told


def test_latency_of_odd_types_does_no_harm(record: Record, tmp_path: Path) -> None:
    odd = {"runtime": None, "ratio": "fast", "p50_ms": True, "distribution_ms": {"model": ["a", None]}, "noise": {}}
    odd |= {"throughput": ["many", {"per_second": "a"}], "energy": {"joules": None}, "startup": {"total_s": 1}}
    record.stages[-1].latency = [odd, {"distribution_ms": 3, "ratio": {"value": 0.5, "low": None, "high": None}}]
    assert "0.50" in outline(write_report(record, tmp_path / "r.html")).words("latency")


@pytest.mark.parametrize("dirty", [True, False])
def test_commands_reproduce(record: Record, enriched: Make, tmp_path: Path, dirty: bool) -> None:
    record = enriched(record)
    record.environment |= {"git_commit": "a" * 40, "git_dirty": dirty}
    told = outline(write_report(record, tmp_path / "r.html")).words("again")
    shown = "shrink run 'my chain.yaml' --strategy 'small + fast' --set stages.0.epochs=2 --set 'name=a b' --set seed=0"
    assert shown in told
    assert (f"git checkout {'a' * 40}" in told) is not dirty
    assert ("Files differed from commit aaaaaaaaaaaa" in told) is dirty
    assert f"shrink resume '{record.folder}'" in told


def test_headings_never_skip_a_level(record: Record, enriched: Make, tmp_path: Path) -> None:
    levels = [level for level, _ in outline(write_report(enriched(record), tmp_path / "r.html")).headings]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_hostile_text_makes_no_tag_or_attribute(record: Record, enriched: Make, hostile: str, tmp_path: Path) -> None:
    plain = Outline(write_report(enriched(record), tmp_path / "r.html").read_text("utf-8"))
    record = poisoned(record, hostile)
    page = write_report(record, tmp_path / "r.html")
    found = outline(page)
    assert found.tags.count("script") == plain.tags.count("script")
    assert found.tags.count("img") == plain.tags.count("img")
    assert not [a for a in found.attributes if a[1].startswith("on")]
    assert hostile in found.sections["verdict"]
    assert "<script>alert" not in page.read_text("utf-8")


def poisoned(record: Record, text: str) -> Record:
    """The record with that text wherever text may stand."""
    record.config["name"] = text
    record.warnings, record.notes = [text], [text]
    record.stages[0].name = text
    record.stages[0].settings = {text: text}
    tensor = {"name": text, "encoding": text, "elements": 8, "before": 32, "bytes": 8}
    record.stages[-1].reports["packing"] = packing(tensors=[tensor], **{text: text})
    record.environment[text] = text
    record.data[text] = {"examples": text, "digest": text}
    record.gates.append(GateRecord(name=text, limit=1, value=1, verdict="fail", message=text, fix=text))
    record.origin = record.origin and record.origin.model_copy(update={"file": text})
    for found in record.stages[-1].classes:
        found.label = text
    record.stages[0].reports[text] = [{"epoch": 0, text: 1.0}, {"epoch": 1, text: 2.0}]
    if record.flipped:
        record.flipped.confusions = [c.model_copy(update={"label": text}) for c in record.flipped.confusions]
        record.flipped.examples = [e.model_copy(update={"label": text, "text": text}) for e in record.flipped.examples]
    return record


@pytest.mark.parametrize(("text", "html"), [
    ("`bits` is <b>; set `bits: 4`", "<code>bits</code> is &lt;b&gt;; set <code>bits: 4</code>"),
    ("`<i>`", "<code>&lt;i&gt;</code>"),
    ("one ` alone", "one ` alone"),
    ("", ""),
])  # fmt: skip
def test_what_stands_in_backticks_is_code_and_all_is_escaped(text: str, html: str) -> None:
    assert coded(text) == html


def test_half_a_character_does_not_stop_the_page(record: Record, tmp_path: Path) -> None:
    record.warnings = ["broken \ud800 text"]
    assert "broken ? text" in outline(write_report(record, tmp_path / "r.html")).words("said")


def test_the_page_lets_nothing_in_but_its_own_scripts(record: Record, tmp_path: Path) -> None:
    found = outline(write_report(record, tmp_path / "r.html"))
    policy = next(v for tag, name, v in found.attributes if tag == "meta" and name == "content" and "script-src" in v)
    assert policy.startswith("default-src 'none'")
    assert policy.count("'sha256-") == 2
    assert "unsafe-inline'; script" in policy
    assert not [a for a in found.attributes if a[1] in ("src", "href") and a[2].startswith(("http", "//"))]


def test_a_comparison_says_what_is_chosen_and_why(comparison: Make) -> None:
    record = comparison()
    found = outline(write_comparison(record, Path(record.folder) / "report.html"))
    choice = "Chosen: distill + quantize Smallest of the 4 strategies that keep at least 0.97 on validation."
    assert choice in found.words("verdict")
    assert "On the front: baseline, quantize, distill and distill + quantize." in found.words("front")
    assert "prune and distill cannot be told apart on 449 test examples" in found.words("pairs")
    assert "that is not the same as being equal" in found.words("pairs")
    assert "1 of 2 pairs can be told apart" in found.words("pairs")
    assert "distill + prune + quantize 0 stages[0] (prune.channels) no channel is left 3" in found.words("failures")
    assert "12 models were measured on this test split" in found.words("data")
    assert "shrink compare configs/digits/strategies.yaml" in found.words("again")
    assert "0.9811 ± 0.0020" in found.words("strategies")
    assert "2 to 4 times smaller" in found.words("strategies")


@pytest.mark.parametrize(("changes", "command"), [
    ({"overrides": ["task.path=a b"]}, "shrink compare configs/digits/strategies.yaml --set 'task.path=a b'"),
    ({"of_runs": True, "origins": ["runs/one", "runs/two"]}, "shrink compare --runs runs/one runs/two"),
])  # fmt: skip
def test_the_command_that_compares_again_is_the_given_one(
    comparison: Make, changes: dict[str, Any], command: str
) -> None:
    record = comparison(**changes)
    assert command in outline(write_comparison(record, Path(record.folder) / "report.html")).words("again")


def test_a_run_that_failed_is_not_told_to_be_packaged(record: Record, tmp_path: Path) -> None:
    record.failure = Failure(where="stages[1] (prune.channels)", message="it broke", exit_code=3)
    told = outline(write_report(record, tmp_path / "r.html")).words("again")
    assert "shrink resume" in told
    assert "shrink package" not in told


def test_a_comparison_links_the_pages_that_are_there(comparison: Make) -> None:
    record = comparison()
    found = outline(write_comparison(record, Path(record.folder) / "report.html"))
    links = [v for tag, name, v in found.attributes if (tag, name) == ("a", "href") and not v.startswith("#")]
    assert links == ["../20260101-quantize/report.html"]
    assert (Path(record.folder) / links[0]).resolve().is_file()


@pytest.mark.parametrize("run", ["../outside", "..", "javascript:alert(1)", "a/../b"])
def test_a_run_with_an_odd_name_is_no_way_out(comparison: Make, run: str) -> None:
    record = comparison()
    record.strategies[1].runs = [run]
    for folder in ("outside", "javascript:alert(1)", "b"):
        for place in (Path(record.folder).parent, Path(record.folder).parents[1]):
            (place / folder).mkdir(exist_ok=True)
            (place / folder / "report.html").write_text("")
    page = write_comparison(record, Path(record.folder).parent / "report.html")
    links = [v for tag, name, v in outline(page).attributes if (tag, name) == ("a", "href") and not v.startswith("#")]
    odd = ["javascript%3Aalert%281%29/report.html"] if run.startswith("javascript") else []
    assert links == [*odd, "20260101-quantize/report.html"]


def test_a_comparison_of_nothing_gives_a_page(tmp_path: Path) -> None:
    record = ComparisonRecord(
        comparison="c", folder=str(tmp_path), started=STARTED, origins=[], choice_reason="none kept"
    )
    found = outline(write_comparison(record, tmp_path / "r.html"))
    assert "No strategy is chosen None kept." in found.words("verdict")
    assert "front" not in found.sections


def test_notes_on_pairs_are_told_once(comparison: Make) -> None:
    record = comparison(notes=["another note"])
    record.notes += sentences(record.tests, record.test_samples)
    found = outline(write_comparison(record, Path(record.folder) / "report.html"))
    assert "another note" in found.words("said")
    assert "told apart" not in found.words("said")


def test_plotly_takes_every_figure_as_it_is(record: Record, enriched: Make, comparison: Make, tmp_path: Path) -> None:
    pages = [write_report(enriched(record), tmp_path / "r.html"), write_comparison(comparison(), tmp_path / "c.html")]
    shown = [figure for page in pages for plots in figures(page).values() for figure in plots]
    kinds = {trace["type"] for figure in shown for trace in figure["data"]}  # type: ignore[attr-defined]
    assert kinds == {"scatter", "heatmap", "bar"}
    for figure in shown:
        layout: dict[str, object] = figure["layout"]  # type: ignore[assignment]
        taken = json.loads(go.Figure(figure["data"], layout={**layout, "template": "none"}).to_json())
        nothing = {"shapes": []} if layout.get("shapes") == [] else {}  # which plotly leaves out
        assert {**taken, "layout": {**taken["layout"], **nothing}} == figure


def test_neither_plotly_nor_torch_is_imported_with_the_package() -> None:
    heavy = ("plotly", "torch", "jinja2", "onnx")
    code = f"import sys, pipeline.report.html; print([m for m in {heavy} if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_the_folder_of_templates_is_whole() -> None:
    assert {path.suffix for path in HERE.iterdir() if path.is_file()} == {".j2", ".css", ".js", ".gz"}


def test_plotly_is_what_npm_has_and_as_old_as_what_checks_the_figures() -> None:
    source = gzip.decompress(PLOTLY.read_bytes())
    assert hashlib.sha256(source).hexdigest() == "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
    version = re.search(r"plotly.js v([\d.]+)", plotly.offline.get_plotlyjs()[:200])
    assert version
    assert version[1] in PLOTLY.name


def test_a_page_has_at_most_1_2_mb(record: Record, enriched: Make, comparison: Make, tmp_path: Path) -> None:
    pages = [write_report(enriched(record), tmp_path / "r.html"), write_comparison(comparison(), tmp_path / "c.html")]
    assert max(page.stat().st_size for page in pages) < 1_200_000


def test_a_comparison_says_why_a_strategy_fails(comparison: Make, tmp_path: Path) -> None:
    gate = GateRecord(name="size_bytes", limit=10_000.0, value=12_000.0, verdict="fail", message="size_bytes is 12,000")
    kept = GateRecord(name="retention", limit=0.9, value=0.95, verdict="pass", message="retention is 0.950")
    record = comparison()
    record.strategies[1].gates = [kept, gate]
    page = write_comparison(record, tmp_path / "c.html")
    assert "size bytes Fail size_bytes is 12,000 prune retention Pass" in outline(page).words("budget")
    shapes = [shape for plot in figures(page)["front"] for shape in plot["layout"]["shapes"]]  # type: ignore[index,call-overload]
    assert {10_000.0, 0.9} <= {shape.get("x0") for shape in shapes} | {shape.get("y0") for shape in shapes}


def test_runtimes_are_a_matrix_with_the_chosen_pair_and_why_one_was_skipped(comparison: Make, tmp_path: Path) -> None:
    page = write_comparison(comparison(), tmp_path / "c.html")
    words, text = outline(page).words("runtimes"), page.read_text()
    assert "Chosen: distill + quantize in onnxruntime, threads 1, batch 1, fastest of the 3 of 8 pairs." in words
    assert text.count('<td class="taken">') == text.count('<p class="mark chosen">') == 1
    assert text.count('<abbr title="the converter of mnn ended with 3') == 2
    assert words.count("it does not take the operators of a quantized file") == 1  # below the table, once
    assert text.count('class="mark fail">other model') + text.count('class="mark fail"><span class="line">other') == 2


def test_a_reason_of_a_runtime_is_text(comparison: Make, hostile: str, tmp_path: Path) -> None:
    record = comparison()
    record.strategies[2].runtimes = [{"runtime": hostile, "threads": 1, "batch": 1, "skipped": hostile}]
    text = write_comparison(record, tmp_path / "c.html").read_text()
    assert "<img src=x" not in text
    assert text.count("&lt;img src=x onerror=alert(2)&gt;") >= 3
