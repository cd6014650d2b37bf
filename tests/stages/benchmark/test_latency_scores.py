"""Scores in every runtime, from `shrink run` and `shrink compare` on the digits, in real processes."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.measure.accuracy import Evaluation
from pipeline.records.record import Record
from tests.aliases import Make
from tests.forked import Ended, Shrink, children
from tests.users import only_run, stage_file

MODELS = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""
FIT = stage_file(
    """
    # Least squares to the classes, which takes no time.
    module = copy.deepcopy(model.module)
    (batch,) = ctx.train.loader(len(ctx.train))
    rows = torch.cat([batch.inputs["input"].flatten(1), torch.ones(len(batch.index), 1)], 1).double()
    targets = torch.nn.functional.one_hot(batch.targets, 10).double()
    solved = torch.linalg.solve(rows.T @ rows + torch.eye(65), rows.T @ targets).T.float()
    with torch.no_grad():
        module[1].weight.copy_(solved[:, :-1])
        module[1].bias.copy_(solved[:, -1])
    return replace(model, module=module)
    """
)
ODD = '''
from typing import ClassVar
from stages.benchmark.runtime import Runtime

class Odd(Runtime):
    """What ONNX Runtime gives, in steps, and with one logit higher."""

    package: ClassVar[str] = "numpy"
    step: float = 1e-6
    higher: float = 0.0

    def convert(self, model, ctx, folder, batch):
        return {**super().convert(model, ctx, folder, batch), "step": self.step, "higher": self.higher}
'''
ODD_RUNNER = """
import dataclasses
from stages.benchmark.runners import onnxruntime

def load(spec):
    loaded = onnxruntime.load(spec)

    def answers(raw):
        ((name, logits),) = loaded.answers(raw).items()
        logits = (logits / spec["step"]).round() * spec["step"]
        logits[:, 3] += spec["higher"]
        return {name: logits.astype("float32")}

    return dataclasses.replace(loaded, answers=answers)
"""
FOURS = '''
from typing import ClassVar
import onnx
from stages.benchmark.runtime import Runtime

class Fours(Runtime):
    """ONNX Runtime with a file for one number of examples."""

    package: ClassVar[str] = "onnxruntime"
    runner: ClassVar[str] = "ort"
    fixed_batch: ClassVar[bool] = True

    def convert(self, model, ctx, folder, batch):
        proto = onnx.load(ctx.deployed(model).path)
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
        onnx.save(proto, folder / "fixed.onnx")
        return {"model": str(folder.resolve() / "fixed.onnx")}
'''
FILES = {"models.py": MODELS, "fit.py": FIT, "odd.py": ODD, "odd_runner.py": ODD_RUNNER, "fours.py": FOURS}
HEAD = """
task: {use: digits}
model: {use: models.py:net}
baseline:
  - {use: fit.py}
"""
BENCHMARK = "{use: benchmark.latency, rounds: 1, iterations: 1, warmup: 0, examples: 0, batch: [4], runtimes: "
WRONG, ROUNDS = "{use: odd.py, higher: 0.5}", "{use: odd.py, step: 0.1}"
STAGES = f"stages:\n  - {{use: export.onnx}}\n  - {BENCHMARK}[RUNTIMES]}}\n"
WITHIN = "budget: {retention: {min: 0.9}, drop: {max: 0.1}}\n"


def shrink(folder: Path, *words: object) -> Ended:
    return Shrink(folder, *map(str, words), cwd=folder, prepare=children).end()


def chain(project: Make, runtimes: str, more: str = "") -> Path:
    return Path(project(HEAD + STAGES.replace("RUNTIMES", runtimes) + more, **FILES))


def rows(record: Record) -> list[dict[str, Any]]:
    return [dict(row) for row in record.stages[-1].latency]


def test_each_runtime_has_its_score_in_pairs_with_what_was_measured(project: Make, tmp_path: Path) -> None:
    file = chain(project, f"onnxruntime, openvino, fours.py, {ROUNDS}, {WRONG}", WITHIN)
    ended = shrink(tmp_path, "run", file, "--runs", tmp_path / "runs")
    assert ended.code == 0, ended.err
    record = Record.load(only_run(tmp_path / "runs"))
    evaluation = Evaluation.load(Path(record.folder) / record.stages[0].predictions)
    itself, openvino, fours, rounded, wrong = (row["score"] for row in rows(record))
    for score in (itself, openvino, fours):
        assert score["value"] == record.stages[0].score
        assert (score["verdict"], score["flips"], score["changed"]) == ("same decisions", {"lost": 0, "gained": 0}, 0)
        assert score["worst"] is None
        assert score["retention"] == record.stages[0].retention.model_dump()
    assert itself["validation_retention"] == record.stages[0].validation_retention.model_dump()
    assert fours["validation"] == record.stages[0].validation_score
    own, *_, others = (row["baseline"]["score"] for row in rows(record))
    assert record.baseline is not None
    assert (own["value"], own["verdict"]) == (record.baseline.score, "same decisions")
    assert (others["value"] < own["value"], others["verdict"]) == (True, "other model")
    assert rounded["verdict"] == "within the budget"
    assert 0 < rounded["changed"] < 0.2
    assert wrong["verdict"] == "other model"
    assert (wrong["drop"]["value"], wrong["value"]) == pytest.approx((itself["value"] - wrong["value"], wrong["value"]))
    assert wrong["flips"]["lost"] - wrong["flips"]["gained"] == round(wrong["drop"]["value"] * len(evaluation.scores))
    assert evaluation.scores[wrong["worst"]] == 1
    of_baseline, warning = sorted(text for text in record.warnings if "another model" in text)
    assert ": odd, the baseline: it is another model there than the one that was measured: " in of_baseline
    lost = f"{wrong['flips']['lost']} test examples are lost"
    assert warning.startswith("stages[1] (benchmark.latency): odd: it is another model there than the one")
    assert lost in warning
    assert f"the worst example is number {wrong['worst']} of the test split, and the budget is not kept" in warning
    assert record.test_uses == 2  # the same models elsewhere are no new looks


def test_one_that_is_required_and_another_model_ends_the_run(project: Make, tmp_path: Path) -> None:
    file = chain(project, "{use: odd.py, higher: 0.5, required: true}, onnxruntime")
    ended = shrink(tmp_path, "run", file, "--runs", tmp_path / "runs")
    assert ended.code == 3
    message = "odd, which is required: it is another model there than the one that was measured"
    assert message in " ".join(ended.err.split())


@pytest.mark.slow
def test_strategies_are_scored_each_beside_its_own(project: Make, tmp_path: Path) -> None:
    timed = f"    - {BENCHMARK}[onnxruntime, {ROUNDS}]}}\n"
    one, other = "    - {use: export.onnx}\n", "    - {use: export.onnx}\n    - {use: quantize.dynamic}\n"
    strategies = f"strategies:\n  floats:\n{one}{timed}  integers:\n{other}{timed}"
    file = project(HEAD + strategies, **FILES)
    ended = shrink(tmp_path, "compare", file, "--into", tmp_path / "runs", "--json")
    assert ended.code == 0, ended.err
    records = [Record.load(tmp_path / "runs" / one["runs"][0]) for one in json.loads(ended.out)["strategies"][1:]]
    for record in records:
        itself, rounded = (row["score"] for row in rows(record))
        before = record.stages[-2]
        assert record.baseline is not None
        assert rows(record)[0]["baseline"]["score"]["value"] == record.baseline.score
        assert (itself["value"], itself["verdict"]) == (before.score, "same decisions")
        assert itself["retention"] == before.retention.model_dump()
        assert rounded["drop"]["value"] == pytest.approx(before.score - rounded["value"])
        assert rounded["drop"]["high"] > 0.01  # of 449 examples no few changes are surely below that
        assert rounded["verdict"] == ("within the budget" if rounded["drop"]["value"] <= 0.01 else "other model")
    assert [record.stages[-2].name for record in records] == ["export.onnx", "quantize.dynamic"]
