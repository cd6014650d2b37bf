"""`shrink sensitivity` and `shrink bisect`: runs of their own beside the chain, with the layers in what they print."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipeline import runner
from tests.aliases import Make, Patch
from tests.users import chain_of, only_run

NET = "use: models.py:TinyNet"
CHAIN = chain_of("export.onnx", "quantize.static, layers: {conv2: 2}", "quantize.pack", model=NET)


@pytest.fixture
def shrink(shrink: Make, monkeypatch: Patch) -> Make:
    """The command in this process, without MLflow."""
    monkeypatch.setattr(runner, "open_tracking", lambda *_, **__: nullcontext())
    return shrink


def words(text: str) -> str:
    """A message as one line, however it was wrapped."""
    return " ".join(text.split())


@pytest.fixture
def chain(project: Make, monkeypatch: Patch) -> Path:
    path: Path = project(CHAIN + "budget: {size: {max: 1 B}}\n")
    monkeypatch.chdir(path.parent)
    return path


def test_sensitivity_measures_in_place_of_the_stage_and_judges_nothing(chain: Path, shrink: Make) -> None:
    ended = shrink("sensitivity", chain, "--json")
    assert ended.code == 0, ended.err
    record = json.loads(ended.out)
    assert [stage["name"] for stage in record["stages"]] == ["export.onnx", "quantize.sensitivity"]
    layers = record["stages"][1]["reports"]["sensitivity"]["layers"]
    assert [layer["layer"] for layer in layers] == ["conv1", "conv2", "head"]
    assert all({*layer["effects"]} == {"8", "4", "2"} for layer in layers)
    assert record["gates"] == []
    report = (Path(record["folder"]) / "report.html").read_text()
    assert "Sensitivity of layers" in report
    assert "Sensitivity of layers" in (Path(record["folder"]) / "summary.md").read_text()


def test_operators_whose_weights_take_no_fewer_bits_are_left_out(project: Make, shrink: Make) -> None:
    def asked(operators: str) -> Path:
        path: Path = project(chain_of("export.onnx", f"quantize.dynamic, operators: {operators}", model=NET))
        return path

    ended = shrink("sensitivity", path := asked("[Attention, Gemm]"), "--json", "--runs", path.parent / "runs")
    assert ended.code == 0, ended.err
    (row,) = json.loads(ended.out)["stages"][1]["reports"]["sensitivity"]["layers"]
    assert row["operator"] == "Gemm"
    ended = shrink("sensitivity", asked("[Attention]"))
    assert ended.code == 2
    assert "expected a stage whose layers can be looked at" in words(ended.err)


def test_it_prints_the_layers_that_matter_most_first(chain: Path, shrink: Make) -> None:
    ended = shrink("sensitivity", chain)
    assert "how far the answers move where one layer alone has fewer bits or channels" in words(ended.out)
    rows = [line for line in ended.out.splitlines() if "Conv" in line or "Gemm" in line]
    worst = [float(row.strip("│ ").split("│")[-1]) for row in rows]
    assert worst == sorted(worst, reverse=True)


def test_bisect_names_the_layer_of_a_run_that_costs_the_accuracy(chain: Path, shrink: Make) -> None:
    assert shrink("run", chain).code == 1  # over the budget
    ended = shrink("bisect", only_run(chain.parent))
    assert ended.code == 0, ended.err
    assert "What is lost comes, of 3 layers, from conv2 (" in words(ended.out)


AWARE = chain_of("quantize.aware, epochs: 1, layers: {conv2: 2}", model=NET)


@pytest.mark.slow
def test_sensitivity_of_a_network_that_is_to_be_trained_is_that_of_its_file(project: Make, shrink: Make) -> None:
    ended = shrink("sensitivity", path := project(AWARE), "--json", "--runs", path.parent / "runs")
    assert ended.code == 0, ended.err
    exported, measured = json.loads(ended.out)["stages"]
    assert (exported["name"], measured["name"]) == ("export.onnx", "quantize.sensitivity")
    assert [row["layer"] for row in measured["reports"]["sensitivity"]["layers"]] == ["conv1", "conv2", "head"]


def test_bisect_looks_at_a_network_that_was_trained_with_integers(project: Make, shrink: Make) -> None:
    path = project(AWARE)
    assert shrink("run", path, "--runs", path.parent / "runs").code == 0
    ended = shrink("bisect", only_run(path.parent), "--json")
    assert ended.code == 0, ended.err
    trained, bisected = json.loads(ended.out)["stages"]
    assert (trained["name"], trained["cached"], bisected["name"]) == ("quantize.aware", True, "quantize.aware_bisect")
    assert bisected["reports"]["bisection"]["layers"][0]["layer"] == "conv2"


def test_halves_are_looked_at_too(project: Make, shrink: Make) -> None:
    path = project(chain_of("export.onnx", "quantize.half, kind: bf16", model=NET))
    runs = path.parent / "runs"
    assert shrink("run", path, "--runs", runs).code == 0
    ended = shrink("bisect", only_run(path.parent))
    assert ended.code == 0, ended.err
    assert "What is lost comes, of 3 layers, from" in words(ended.out)
    assert "`fp32: [" in words(ended.out)
    ended = shrink("sensitivity", path, "--json", "--runs", runs)
    assert ended.code == 0, ended.err
    layers = json.loads(ended.out)["stages"][1]["reports"]["sensitivity"]["layers"]
    assert [{*layer["effects"]} for layer in layers] == [{"bf16"}] * 3


@pytest.mark.parametrize(("file", "old", "new", "told"), [
    ("models.py", "torch.relu(self.conv2", "torch.tanh(self.conv2", "(export.onnx): it would be made anew: "),
    ("models.py", "width: int = 8", "width: int = 6", "model: the model is not the one that the run began with"),
    ("data.py", "quadrants(train, 0)", "quadrants(train, 3)", "task: the data are not those of the run: train"),
])  # fmt: skip
def test_bisect_refuses_a_run_whose_code_or_data_have_changed(
    file: str, old: str, new: str, told: str, chain: Path, shrink: Make
) -> None:
    shrink("run", chain)
    run, path = only_run(chain.parent), chain.parent / file
    path.write_text(path.read_text().replace(old, new))
    ended = shrink("bisect", run)
    assert ended.code == 2
    assert told in words(ended.err)
    assert "Run the pipeline again, and bisect that run" in words(ended.err)
    assert only_run(chain.parent) == run
    assert shrink("run", chain).code == 1  # which leaves its own results in the store
    assert shrink("bisect", run).code == 2


def test_bisect_refuses_to_train_a_baseline_anew(project: Make, shrink: Make) -> None:
    last = "quantize.static, layers: {conv2: 2}"
    path = project(chain_of("export.onnx", last, model=NET, baseline="train.supervised, epochs: 1"))
    shrink("run", path, "--runs", path.parent / "runs")
    run, models = only_run(path.parent), path.parent / "models.py"
    assert shrink("bisect", run).code == 0
    models.write_text(models.read_text() + "\nEDITED = True\n")
    ended = shrink("bisect", run)
    assert ended.code == 2
    assert "baseline[0] (train.supervised): it would be made anew: " in words(ended.err)


@pytest.mark.parametrize("command", ["sensitivity", "bisect"])
def test_a_chain_without_such_a_stage_is_refused(command: str, project: Make, shrink: Make) -> None:
    path = project(chain_of("export.onnx", model=NET))
    asked = path if command == "sensitivity" else path.parent
    if command == "bisect":
        shrink("run", path, "--runs", path.parent / "runs")
        asked = only_run(path.parent)
    ended = shrink(command, asked)
    assert ended.code == 2
    assert "the stages are export.onnx; expected a stage whose layers can be looked at, such as" in words(ended.err)


def test_bisect_refuses_another_folder_and_an_unknown_stage(chain: Path, shrink: Make) -> None:
    ended = shrink("bisect", chain.parent)
    assert (ended.code, "no run folder" in ended.err) == (2, True)
    shrink("run", chain)
    ended = shrink("bisect", only_run(chain.parent), "--stage", "quantize.dynamic")
    assert ended.code == 2
    assert "no stage is `quantize.dynamic`; expected one of export.onnx, quantize.static" in words(ended.err)
