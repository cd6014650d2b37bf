"""A chain from one end to the other: what is on disk, what repeats, what a user's stage may do, how a run fails."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnxruntime
import pytest
import torch

from pipeline import model as models
from pipeline.build.source import load_config
from pipeline.errors import ConfigError, ResourceError, StageError
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.statistics.means import retention
from pipeline.records.record import Record
from pipeline.runner import run
from tests.aliases import Make
from tests.users import MINE_ALONE, only_run, stage_file

NOISE = "module = copy.deepcopy(model.module); torch.nn.init.normal_(module.head.weight); "
RETURN = "return replace(model, module=module)"


@pytest.fixture
def finished(kept: dict[str, Record], project: Make) -> Record:
    if not kept:
        chain = project()
        kept["record"] = run(chain, runs=chain.parent / "runs", track=False)
    return kept["record"]


@pytest.fixture
def run_mine(project: Make) -> Callable[..., Record]:
    """run_mine(body): a chain whose only stage is a user's, with this body."""

    def go(body: str, chain: str = MINE_ALONE) -> Record:
        path = project(chain, **{"mine.py": stage_file(body, "strength: float = 0.5")})
        return run(path, runs=path.parent / "runs", track=False)

    return go


def tree(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_record_json_is_the_record_that_run_gives(finished: Record) -> None:
    assert json.loads((Path(finished.folder) / "record.json").read_text()) == finished.model_dump(mode="json")
    assert Record.load(Path(finished.folder)) == finished


def test_record_json_fits_its_published_schema(finished: Record) -> None:
    given = json.loads((Path(finished.folder) / "record.json").read_text())
    jsonschema.Draft202012Validator(Record.model_json_schema()).validate(given)
    broken = {**given, "stages": [{**given["stages"][0], "size_bytes": "big"}]}
    with pytest.raises(jsonschema.ValidationError, match="big"):
        jsonschema.Draft202012Validator(Record.model_json_schema()).validate(broken)


def test_the_baseline_is_measured_first_and_has_no_retention_of_its_own(finished: Record) -> None:
    found = finished.baseline
    assert (found.retention, found.retention_before, found.compression_ratio) == (None, None, 1.0)
    assert (found.test_samples, set(found.reports)) == (128, {"0.training"})


def test_each_stage_is_measured_against_the_baseline_and_the_stage_before(finished: Record) -> None:
    for position, stage in enumerate(finished.stages):
        assert stage.position == position
        assert stage.compression_ratio == finished.baseline.size_bytes / stage.size_bytes > 1
        assert stage.retention.value == pytest.approx(stage.score / finished.baseline.score)
        assert stage.retention.low < stage.retention.value < stage.retention.high
        assert stage.score * 128 == pytest.approx(finished.baseline.score * 128 - stage.flips.lost + stage.flips.gained)
    distilled, exported = finished.stages
    assert exported.retention_before.value == 1.0
    assert (distilled.params, distilled.macs, distilled.form) == (exported.params, exported.macs, "torch")
    assert exported.form == "onnx"


def test_the_size_is_that_of_the_file_to_deploy(finished: Record) -> None:
    for found in (finished.baseline, *finished.stages):
        assert (Path(finished.folder) / found.file).stat().st_size == found.size_bytes > found.payload_bytes
        # float32 weights: the payload is at least four bytes a parameter, and little more.
        assert 4 * found.params <= found.payload_bytes < 4 * found.params + 100


def test_the_score_is_what_onnx_runtime_gives_on_the_test_split(finished: Record, task: Any) -> None:
    final = finished.final
    session = onnxruntime.InferenceSession(Path(finished.folder) / final.file)
    images, labels = task.test.dataset.tensors
    (logits,) = session.run(None, {"input": images.numpy()})
    assert final.score == pytest.approx(float(np.mean(logits.argmax(1) == labels.numpy())))


def test_predictions_are_kept_for_each_example(finished: Record) -> None:
    for found in (finished.baseline, *finished.stages):
        kept = Evaluation.load(Path(finished.folder) / found.predictions)
        assert (kept.predictions.shape, float(kept.scores.mean())) == ((128, 4), found.score)


def test_validation_is_looked_at_beside_the_test_split(finished: Record, task: Any) -> None:
    base = finished.baseline
    assert base.validation_retention is None
    theirs = Evaluation.load(Path(finished.folder) / base.predictions).validation_scores
    for stage in finished.stages:
        session = onnxruntime.InferenceSession(Path(finished.folder) / stage.file)
        images, labels = task.validation.dataset.tensors
        (logits,) = session.run(None, {"input": images.numpy()})
        right = logits.argmax(1) == labels.numpy()
        ours = Evaluation.load(Path(finished.folder) / stage.predictions).validation_scores
        np.testing.assert_array_equal(ours.numpy(), right)
        assert stage.validation_score == pytest.approx(float(right.mean()))
        assert stage.validation_retention == retention(ours.numpy(), theirs.numpy())


def test_each_class_is_looked_at(finished: Record, task: Any) -> None:
    labels = task.test.dataset.tensors[1]
    for found in (finished.baseline, *finished.stages):
        assert [one.label for one in found.classes] == ["0", "1", "2", "3"]
        assert [one.support for one in found.classes] == torch.bincount(labels).tolist()
        kept = Evaluation.load(Path(finished.folder) / found.predictions)
        assert torch.equal(kept.targets, labels)
        means = [float(kept.scores[labels == number].mean()) for number in range(4)]
        assert [one.score for one in found.classes] == pytest.approx(means)


def test_models_are_kept_and_load_again(finished: Record) -> None:
    code = Path(finished.folder).parents[1]
    predicted = []
    for stage in finished.stages:
        model = models.load(Path(finished.folder) / stage.folder, code)
        assert model.form == stage.form
        predicted.append(model.predict(model.example)["output"])
    torch.testing.assert_close(*predicted, rtol=1e-5, atol=1e-5)


def test_nothing_in_the_run_folder_is_pickled(finished: Record) -> None:
    kinds = {path.suffix for path in Path(finished.folder).rglob("*") if path.is_file()}
    kinds -= {".png"}  # of examples that the last model lost, where it lost any
    known = {".json", ".jsonl", ".yaml", ".safetensors", ".onnx", ".log", ".md", ".html", ".xml", ""}
    assert kinds == known  # "" is the empty file `lock`


def test_the_resolved_config_in_the_run_folder_spells_out_every_setting(finished: Record) -> None:
    again, source = load_config(Path(finished.folder) / "config.yaml")
    assert source.data == finished.config
    assert [entry.settings for entry in again.stages] == [stage.settings for stage in finished.stages]
    assert again.stages[0].settings["rest_weight"] == 8.0  # a default


def test_reports_of_the_stages_are_in_the_record(finished: Record) -> None:
    assert [set(stage.reports) for stage in finished.stages] == [{"teacher", "training"}, {"parity"}]


@pytest.mark.parametrize("source", ["a config in Python", "the file in the run folder"])
def test_the_same_seed_gives_the_same_digests_and_scores(finished: Record, project: Make, source: str) -> None:
    resolved = (Path(finished.folder) / "config.yaml").read_text()
    chain = project(resolved) if "run folder" in source else project()
    config = load_config(chain)[0] if "Python" in source else chain
    torch.manual_seed(12345)  # what anything else in the process left in the generators must not matter
    again = run(config, runs=chain.parent / "runs", track=False)
    for one, other in zip((finished.baseline, *finished.stages), (again.baseline, *again.stages), strict=True):
        assert (one.digest, one.score) == (other.digest, other.score)


def test_another_seed_gives_another_model(finished: Record, project: Make) -> None:
    chain = project()
    other = run(chain, overrides=["seed=1"], runs=chain.parent / "runs", track=False)
    assert other.seed == 1
    assert other.baseline.digest != finished.baseline.digest


def test_a_users_stage_that_returns_a_new_model_is_measured(run_mine: Make) -> None:
    record = run_mine(NOISE + RETURN)
    (stage,) = record.stages
    assert (stage.name, stage.changed, stage.settings) == ("mine.py", True, {"strength": 0.5})
    assert stage.digest != record.baseline.digest
    assert stage.kl_mean > 0


def test_a_users_stage_that_only_measures_reports_and_changes_nothing(run_mine: Make) -> None:
    record = run_mine("ctx.report('names', [n for n, _ in model.module.named_children()]); return model")
    (stage,) = record.stages
    assert stage.reports == {"names": ["conv1", "conv2", "head"]}
    assert (stage.changed, stage.digest) == (False, record.baseline.digest)
    assert not [text for text in record.warnings if "mine.py" in text]
    for kept in (stage.retention, stage.retention_before):  # the baseline against itself, not nothing
        assert kept.low < kept.value == 1.0 < kept.high


def test_a_new_model_that_is_the_same_to_the_byte_is_a_warning(run_mine: Make) -> None:
    record = run_mine("return replace(model, module=copy.deepcopy(model.module))")
    assert "stages[0] (mine.py): it changed nothing, the model is the same to the byte" in record.warnings
    assert not record.stages[0].changed


@pytest.mark.parametrize(("body", "message"), [
    ("raise ValueError('no luck')", r"^stages\[0\] \(mine.py\): ValueError: no luck"),
    (NOISE + "module.conv1 = torch.nn.Sequential(module.conv1, torch.nn.Tanh()); " + RETURN,
     r"(?s)cannot be loaded again: .*conv1.0.weight.*Make every change of structure an edit"),
    (NOISE + "module.register_forward_hook(lambda m, i, o: 2 * o); " + RETURN,
     r"other values for \['output'\]; expected the same outputs to the bit. Make every change"),
    ("return 3", r"run gave int; expected TorchModel, as it is annotated"),
    ("return None", r"run gave NoneType"),
    ("model.module.head.weight.data *= 2; return model", r"run changed the model that it was given; expected a new"),
    ("torch.nn.init.ones_(model.module.head.weight); return replace(model)", r"changed the model that it was given"),
    (NOISE + "module.head.weight.data *= torch.nan; " + RETURN,
     r"mine.py\), measured: the model's predictions are not"),
    ("ctx.report('mean', torch.zeros(3)); return model",
     r"report `mean` holds a tensor of shape \(3,\); expected JSON"),
    ("ctx.report('latency', 3.5); return model", r"A report named `latency` is a list of dictionaries"),
])  # fmt: skip
def test_a_stage_that_goes_wrong_is_one_error_with_its_place(run_mine: Make, body: str, message: str) -> None:
    with pytest.raises(StageError, match=message) as caught:
        run_mine(body)
    assert caught.value.where.removesuffix(", measured") == "stages[0] (mine.py)"


def test_a_failing_stage_leaves_what_came_before_and_says_why(project: Make) -> None:
    chain = MINE_ALONE.replace("  - {use: mine.py}", "  - {use: export.onnx}\n  - {use: broken.py}")
    broken = stage_file("raise {error}", form="OnnxModel")
    path = project(chain, **{"broken.py": broken.format(error="OSError(28, 'No space left on device')")})
    with pytest.raises(ResourceError, match="No space left"):
        run(path, runs=path.parent / "runs", track=False)
    earlier = only_run(path.parent)
    before = tree(earlier)
    path = project(chain, **{"broken.py": broken.format(error="KeyError('x')")})
    with pytest.raises(StageError, match="KeyError"):
        run(path, runs=path.parent / "runs", track=False)
    assert tree(earlier) == before
    (later,) = set(path.parent.glob("runs/*-chain-*")) - {earlier}
    records = [Record.load(folder) for folder in (earlier, later)]
    assert [record.failure.exit_code for record in records if record.failure] == [4, 3]
    assert records[1].failure.where == "stages[1] (broken.py)"
    assert records[1].failure.message.startswith("stages[1] (broken.py): KeyError: 'x'")
    assert records[1].verdict is None
    assert [stage.name for stage in records[1].stages] == ["export.onnx"]
    assert (later / records[1].stages[0].file).is_file()
    jsonschema.Draft202012Validator(Record.model_json_schema()).validate(records[1].model_dump(mode="json"))


def test_no_model_folder_is_left_by_a_stage_whose_model_does_not_survive(project: Make) -> None:
    body = NOISE + "module.register_forward_hook(lambda m, i, o: 2 * o); " + RETURN
    path = project(MINE_ALONE, **{"mine.py": stage_file(body, "strength: float = 0.5")})
    with pytest.raises(StageError, match="to the bit"):
        run(path, runs=path.parent / "runs", track=False)
    assert not (only_run(path.parent) / "stages" / "0-mine" / "model").exists()
    kept = [json.loads(file.read_text())["stage"] for file in path.parent.glob("runs/store/entries/*/parts.json")]
    assert kept == ["measure"]  # of the model that came in; the failure is not stored


def test_a_stage_cannot_see_test_data(project: Make) -> None:
    path = project(MINE_ALONE, **{"mine.py": stage_file("next(iter(ctx.task.test.loader(4)))\nreturn model")})
    with pytest.raises(StageError, match=r"mine.py\): it reads the test split; expected train.*a stage cannot peek"):
        run(path, runs=path.parent / "runs", track=False)


def test_a_runs_folder_that_cannot_be_made_is_a_config_error(project: Make) -> None:
    path = project()
    (path.parent / "runs").write_text("a file")
    with pytest.raises(ConfigError, match=r"the folder for runs.*Choose another with --runs"):
        run(path, runs=path.parent / "runs", track=False)


@pytest.mark.parametrize(("override", "message"), [
    ("stages.0.temprature=2", "temprature"), ("device=cuda", r"^device: there is no CUDA device"),
])  # fmt: skip
def test_a_config_that_cannot_work_leaves_no_run_folder(project: Make, override: str, message: str) -> None:
    if override == "device=cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    path = project()
    with pytest.raises(ConfigError, match=message):
        run(path, overrides=[override], runs=path.parent / "runs", track=False)
    assert not (path.parent / "runs").exists()


def test_of_a_run_that_failed_every_limit_is_skipped_and_says_where_it_ended(run_mine: Make, tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        run_mine("raise ValueError('no')", f"{MINE_ALONE}budget: {{size: {{max: 1 MB}}, retention: {{min: 0.9}}}}\n")
    record = Record.load(Path(str(caught.value.run)))
    assert record.failure
    assert {gate.name: gate.verdict for gate in record.gates} == {"size_bytes": "skipped", "retention": "skipped"}
    assert "the run ended in stages[0] (mine.py)" in record.gates[0].message
    assert record.verdict is None


@pytest.mark.parametrize(("limits", "gates", "expected"), [
    ("size: {max: 1 MB}, params: {max: 10000}", {"size_bytes": "pass", "params": "pass"}, "pass"),
    ("size: {max: 1 MB}, params: {max: 10}", {"size_bytes": "pass", "params": "fail"}, "fail"),
    ("retention: {min: 0.99}, macs: {max: 1000000}", {"retention": "inconclusive", "macs": "pass"}, "inconclusive"),
    ("retention: {min: 0.99}, size: {max: 1 B}", {"retention": "inconclusive", "size_bytes": "fail"}, "fail"),
])  # fmt: skip
def test_the_verdict_is_the_worst_limits(run_mine: Make, limits: str, gates: dict[str, str], expected: str) -> None:
    record = run_mine("return model", f"{MINE_ALONE}budget: {{{limits}}}\n")
    assert {gate.name: gate.verdict for gate in record.gates} == gates
    assert record.verdict == expected
