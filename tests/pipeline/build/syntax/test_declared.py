"""What a stage declares is read from its source as it is when it is imported; a wrong name or key needs no torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.base.code import extras
from pipeline.build.source import load_config
from pipeline.build.syntax.asked import ASKED, KEYS, MEASURED, answer
from pipeline.build.syntax.declared import check_declared, extra_of, keys_of, stage_names
from pipeline.cli.catalogue import built_in_stages
from pipeline.cli.doctor.needs import needs
from pipeline.errors import ConfigError
from pipeline.gate.budget import Budget
from tests.aliases import Patch


def test_stages_and_keys_are_those_of_the_classes() -> None:
    assert {name: {*keys_of(name)} for name in stage_names()} == {
        name: {*stage.model_fields} for name, stage in built_in_stages().items()
    }
    assert {name: extra_of(name) for name in stage_names()} == {n: s.extra for n, s in built_in_stages().items()}
    assert extra_of("export.none") == extra_of("mine.py") == ""


@pytest.mark.parametrize("stage", ["export.optimum", "export.seq2seq", "quantize.optimum"])
def test_a_stage_without_its_extra_is_told_with_what_installs_it(
    stage: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(extras, "version", lambda name: None)
    with pytest.raises(
        ConfigError,
        match=r"optimum is not installed and optimum-onnx is not installed\. pip install 'shrinkline\[optimum\]'\.$",
    ):
        check_declared(*load_config(config_with(tmp_path, stage)))
    (row,) = (row for row in needs(tmp_path / "my.yaml") if row.name == f"stages: {stage}")
    assert (row.state, row.fix) == ("missing", "pip install 'shrinkline[optimum]'")


def config_with(folder: Path, stage: str) -> Path:
    path = folder / "my.yaml"
    path.write_text(f"task: {{use: digits}}\nmodel: {{use: models.py:Net}}\nstages:\n  - {{use: {stage}}}\n")
    return path


@pytest.mark.parametrize(("stage", "message"), [
    ("qat", "there is no stage `qat`: `quantize.aware` trains"),
    ("quantize.int4", "there is no stage `quantize.int4`: `quantize.weights` makes weights of products and tables"),
    ("low-rank", "there is no stage `low-rank`: `prune.lowrank` puts two or three small"),
    ("OpenVINO", "there is no stage `OpenVINO`: `benchmark.latency` with `runtimes: [openvino]`"),
    ("prune", "there is no stage `prune`; there are `prune.channels`, `prune.layers`, `prune.lowrank`, "
              "`prune.sensitivity`, `prune.transformers`, `prune.vocabulary`, `prune.weights`. A file"),
    ("prune.engine", "there is no stage `prune.engine`; did you mean `prune.channels`"),
    ("export.onnx, opsett: 18", "there is no key `opsett`; did you mean `opset`?"),
    ("distill.logits, tau: 2", "there is no key `tau`: it is called `temperature`"),
    ("quantize.static, fp16: true", "there is no key `fp16`: `quantize.half` stores weights in 16 bits"),
])  # fmt: skip
def test_what_there_is_not_is_told_with_the_nearest(tmp_path: Path, stage: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        check_declared(*load_config(config_with(tmp_path, stage)))
    assert str(caught.value).startswith(f"{tmp_path / 'my.yaml'}:4: ")


@pytest.mark.parametrize("stage", ["train.supervised, alpha: 1", "quantize.static, tau: 1", "quantize.static, f1: 1",
                                   "benchmark.latency, memory: 1", "export.onnx, ratio: 1"])  # fmt: skip
def test_no_key_is_named_that_the_stage_does_not_have(tmp_path: Path, stage: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no key `\w+`($|;)"):
        check_declared(*load_config(config_with(tmp_path, stage)))


@pytest.mark.parametrize(("keys", "message"), [
    ("task: {use: digits}\nbudget: {accuracy: 0.9}\n", "is of the score itself"),
    ("task: {use: digits}\naccuracy: 0.9\n", "there is no key `accuracy`;"),
])  # fmt: skip
def test_limits_are_named_in_a_budget_alone(tmp_path: Path, keys: str, message: str) -> None:
    (tmp_path / "my.yaml").write_text(f"{keys}model: {{use: models.py:Net}}\nstages: []\n")
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "my.yaml")


def test_a_file_of_the_users_is_not_looked_at(tmp_path: Path) -> None:
    check_declared(*load_config(config_with(tmp_path, "my_stage.py, anything: 1")))


def test_each_answer_names_what_there_is() -> None:
    for text in (*map(answer, (*ASKED, *MEASURED)), *(text for _, text in KEYS.values())):
        methods = re.findall(r"`([a-z]+\.[a-z0-9]+)`", text)
        assert {*methods} <= {*stage_names()}
        assert (
            methods
            or "no stage" in text
            or "it is called" in text
            or "training stage" in text
            or "is the" in text
            or "budget" in text
        )
        keys = {key for name in stage_names() for key in keys_of(name)} | {"strategies", "stages", *Budget.model_fields}
        assert {*re.findall(r"`([a-z_]+): ", text)} <= keys


@pytest.mark.parametrize("command", ["plan", "run", "compare"])
def test_torch_is_not_imported_for_a_wrong_key(tmp_path: Path, command: str) -> None:
    config = config_with(tmp_path, "export.onnx, opsett: 18")
    code = (
        "import sys; from pipeline.cli.app import main\n"
        "try: main()\nfinally: assert 'torch' not in sys.modules, 'torch is there'"
    )
    process = subprocess.run([sys.executable, "-c", code, command, str(config)], capture_output=True, text=True)
    assert process.returncode == 2, process.stderr
    assert "did you mean `opset`" in process.stderr
