"""All that can fail before any work fails in build, with its place."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from pipeline.base.use import import_file
from pipeline.build.build import Built, build, outline
from pipeline.build.source import load_config
from pipeline.errors import ConfigError
from pipeline.task import correct, highest, minus_squared_error
from tests.aliases import Make
from tests.users import chain_of, stage_file

TRAINED = """\
task: {use: data.py}
model: {use: models.py:TinyNet, width: 4}
stages:
  - {use: export.onnx}
"""

NOTHING_CHANGES = stage_file(fields="factor: int = 1")
TIED = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(64, 64), nn.Linear(64, 64)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(self.encode(x.flatten(1)))
"""


def made(path: Path) -> Built:
    return build(*load_config(path))


def refused(path: Path, message: str) -> str:
    with pytest.raises(ConfigError, match=message) as caught:
        made(path)
    return str(caught.value)


def weights(path: Path, width: int = 4) -> nn.Module:
    torch.manual_seed(5)
    return import_file(path.parent / "models.py").TinyNet(width)  # type: ignore[no-any-return]


def same(model: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_build_makes_everything_that_a_config_names(project: Make) -> None:
    built = made(project())
    assert [place for place, _ in built.stages] == ["stages[0] (distill.logits)", "stages[1] (export.onnx)"]
    assert [place for place, _ in built.baseline] == ["baseline[0] (train.supervised)"]
    assert {name: len(split) for name, split in built.task.splits.items()} == {
        "train": 256, "calibration": 256, "validation": 64, "test": 128,
    }  # fmt: skip
    settings = dict(outline(built))["stages[0] (distill.logits)"]
    assert (settings["epochs"], settings["temperature"]) == (2, None)


def test_a_limit_leaves_so_many_examples_of_each_split_the_same_ones_each_time(project: Make) -> None:
    path = project()
    full, few, again = (build(*load_config(path, wanted)) for wanted in ([], ["limit=100"], ["limit=100"]))
    sizes = {name: len(split) for name, split in few.task.splits.items()}
    assert sizes == {"train": 100, "calibration": 100, "validation": 64, "test": 100}
    assert {name: seen.digest for name, seen in few.data.items()} == {n: s.digest for n, s in again.data.items()}
    assert few.data["validation"].digest != few.data["test"].digest != full.data["test"].digest
    assert set(few.data["train"].hashes) < set(full.data["train"].hashes)
    assert set(few.data["calibration"].hashes) <= set(few.data["train"].hashes)


@pytest.mark.parametrize("limit", ["0", "-3", "many"])
def test_a_limit_is_a_number_above_zero(project: Make, limit: str) -> None:
    with pytest.raises(ConfigError, match=r"limit"):
        load_config(project(), [f"limit={limit}"])


def test_a_stage_and_a_task_in_a_file_of_the_users_are_found(project: Make) -> None:
    chain = TRAINED.replace("stages:\n", "stages:\n  - {use: mine.py, factor: 3}\n")
    chain = chain.replace("use: data.py", "use: data.py:task, train: 200")
    built = made(project(chain, **{"mine.py": NOTHING_CHANGES}))
    assert built.stages[0][0] == "stages[0] (mine.py)"
    assert (built.stages[0][1].model_dump(), len(built.task.train)) == ({"factor": 3}, 200)


STAGE = "  - {use: export.onnx}"


@pytest.mark.parametrize(("stage", "line", "message"), [
    ("  - {use: export.onx}", 4, "there is no stage `export.onx`; did you mean `export.onnx`"),
    ("  - {use: mein.py}", 4, "; did you mean `mine.py`"),
    ("  - {use: none.py}", 4, "the module defines 0 stages (none); expected exactly one subclass of Stage"),
    ("  - {use: two.py}", 4, "the module defines 2 stages (A, B); expected exactly one subclass of Stage"),
    ("  - use: export.onnx\n    opsett: 20", 5, "there is no key `opsett`; did you mean `opset`?"),
    ("  - use: export.onnx\n    opset: 17", 5, "`opset` is 17; expected greater than or equal to 18"),
    ("  - use: export.onnx\n    opset: new", 5, "`opset` is 'new'; expected a valid integer"),
    ("  - use: distill.logits\n    temperature: 3", 4, "the key `student` is missing. Add `student:`."),
    ("  - use: distill.logits\n    studnt: {use: a.py:B}", 5, "there is no key `studnt`; did you mean `student`?"),
    ("  - use: distill.logits\n    student: 3", 5, "`student` is 3"),
    ("  - {use: mine.py}\n  - use: mine.py\n    factr: 2", 6, "there is no key `factr`; did you mean `factor`?"),
])  # fmt: skip
def test_a_wrong_stage_is_refused_at_its_line(project: Make, stage: str, line: int, message: str) -> None:
    stages = {"mine.py": NOTHING_CHANGES, "none.py": "from pipeline.stage import Stage\n"}
    stages["two.py"] = NOTHING_CHANGES + "\nclass A(Stage): ...\nclass B(Stage): ...\ndel Mine\n"
    path = project(TRAINED.replace(STAGE, stage), **stages)
    assert refused(path, re.escape(message)).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize(("stages", "message"), [
    ("export.onnx}\n  - {use: mine.py", r"stages\[1\] \(mine\.py\): it is given an ONNX file by stages\[0\]"),
    ("quantize.static", r"stages\[0\] \(quantize\.static\): it is given a torch model.*Put export\.onnx before"),
    ("export.onnx}\n  - {use: quantize.static}\n  - {use: quantize.dynamic",
     r"stages\[2\] \(quantize\.dynamic\): an earlier stage quantizes already"),
    ("bad.py", r"use: bad\.py: ZeroDivisionError"),
])  # fmt: skip
def test_a_stage_that_does_not_fit_is_refused_before_work(project: Make, stages: str, message: str) -> None:
    files = {"mine.py": NOTHING_CHANGES, "bad.py": "1 / 0\n"}
    refused(project(TRAINED.replace("export.onnx", stages), **files), message)


DOUBLE = """
from torch import nn

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double()
"""


@pytest.mark.parametrize(("double_data", "double_model", "message"), [
    (False, True, r"The weights are float64 and `input` is float32: end the builder with \.float\(\)"),
    (True, False, r"The weights are float32 and `input` is float64: give the inputs as \.float\(\)"),
    (True, True, r"stages\[1\] \(quantize\.dynamic\): `1\.weight` is float64; expected float32, which can be"),
])  # fmt: skip
def test_float64_is_called_float64(project: Make, double_data: bool, double_model: bool, message: str) -> None:
    data = project(TRAINED).with_name("data.py").read_text()
    data = data.replace("TensorDataset(images", "TensorDataset(images.double()") if double_data else data
    chain = chain_of("export.onnx", "quantize.dynamic", model="use: double.py:flat")
    builder = DOUBLE if double_model else DOUBLE.replace(".double()", "")
    refused(project(chain, **{"data.py": data, "double.py": builder}), message)


def test_a_chain_that_does_not_fit_is_refused_before_the_data_is_touched(project: Make) -> None:
    chain = TRAINED.replace(STAGE, "  - {use: quantize.static}")
    refused(project(chain, **{"data.py": "1 / 0\n"}), "it is given a torch model")


@pytest.mark.parametrize(("before", "after", "message"), [
    ("data.py", "data.py:tsk", r"task \(data\.py:tsk\): `data\.py` has no `tsk`; did you mean `task`"),
    ("data.py", "digit", r"task \(digit\): there is no module `pipeline\.tasks\.digit`; did you mean `digits`"),
    ("data.py", "data.py, trian: 3", r"task .*unexpected keyword argument 'trian'"),
    ("data.py", "data.py:quadrants, count: 3, seed: 0", r"it gave TensorDataset; expected a pipeline\.task\.Task"),
    ("models.py:TinyNet", "models.py:TinNet", r"`models\.py` has no `TinNet`; did you mean `TinyNet`"),
    ("width: 4", "widht: 4", r"use: models\.py:TinyNet: TypeError: .*unexpected keyword argument 'widht'"),
    ("models.py:TinyNet, width: 4", "builtins:dict", "it gave dict; expected a torch nn.Module"),
    ("models.py:TinyNet, width: 4", "builtins:dict, x: 1", "it gave dict; expected a torch nn.Module"),
    ("models.py:TinyNet, width: 4", "torch.nn:Linear, in_features: 3, out_features: 4",
     r"task, train examples .*RuntimeError: mat1"),
])  # fmt: skip
def test_a_wrong_task_or_model_is_refused(project: Make, before: str, after: str, message: str) -> None:
    refused(project(TRAINED.replace(before, after)), message)


def save_plain(module: nn.Module, path: Path) -> None:
    torch.save(module.state_dict(), path)


def save_tensors(module: nn.Module, path: Path) -> None:
    save_file(module.state_dict(), path)


TAUGHT = TRAINED.replace("width: 4}", "width: 4, weights: net.WEIGHTS}")


@pytest.mark.parametrize(("suffix", "save"), [("pt", save_plain), ("pth", save_plain), ("safetensors", save_tensors)])
def test_weights_are_loaded_to_the_bit(project: Make, suffix: str, save: Make) -> None:
    path = project(TAUGHT.replace("WEIGHTS", suffix))
    module = weights(path)
    save(module, path.parent / f"net.{suffix}")
    built = made(path)
    assert same(built.model.module, module)
    assert built.model.builder.arguments == {"width": 4}


def test_weights_that_are_tied_and_stored_once_are_loaded(project: Make) -> None:
    chain = TAUGHT.replace("models.py:TinyNet, width: 4", "tied.py:Net").replace("WEIGHTS", "safetensors")
    path = project(chain, **{"tied.py": TIED})
    module = import_file(path.parent / "tied.py").Net()
    save_model(module, str(path.parent / "net.safetensors"))
    assert same(made(path).model.module, module)


@pytest.mark.parametrize(("suffix", "save"), [("pt", save_plain), ("safetensors", save_tensors)])
def test_weights_of_another_shape_or_name_are_named(project: Make, suffix: str, save: Make) -> None:
    path = project(TAUGHT.replace("WEIGHTS", suffix))
    module = weights(path)
    module.add_module("extra", nn.Linear(1, 1))
    del module.conv2
    save(module, path.parent / f"net.{suffix}")
    text = refused(path, rf"model weights .*net\.{suffix}: ")
    assert "The builder must make the module that the weights come from" in text
    for key in ("conv2.weight", "extra.bias"):
        assert key in text
    save(weights(path, width=6), path.parent / f"net.{suffix}")
    refused(path, "conv1.weight")


def test_weights_that_are_missing_are_named_with_the_nearest(project: Make) -> None:
    path = project(TAUGHT.replace("WEIGHTS", "pt"))
    (path.parent / "nets.pt").touch()
    refused(path, r"model weights .*net\.pt: there is no such file; did you mean `nets\.pt`")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut short"])
def test_a_damaged_weights_file_is_one_clear_error(project: Make, suffix: str, content: bytes) -> None:
    path = project(TAUGHT.replace("WEIGHTS", suffix))
    (path.parent / f"net.{suffix}").write_bytes(content)
    refused(path, rf"model weights .*net\.{suffix}: ")


def test_weights_with_nan_are_refused_before_training(project: Make) -> None:
    path = project(TAUGHT.replace("WEIGHTS", "pt"))
    module = weights(path)
    with torch.no_grad():
        module.head.bias[0] = float("nan")
    save_plain(module, path.parent / "net.pt")
    refused(path, "head.bias holds values that are no numbers")


def distilling(**settings: Any) -> str:
    student = f"student: {{use: models.py:TinyNet, width: {settings.pop('width', 4)}}}"
    rest = "".join(f", {key}: {value}" for key, value in settings.items())
    return TRAINED.replace("width: 4}", "width: 16}").replace(STAGE, f"  - {{use: distill.logits, {student}{rest}}}")


@pytest.mark.parametrize(("chain", "message"), [
    (distilling(temperature=1), r"stages\[0\] \(distill\.logits\): temperature 1 shows the student little"),
    (TRAINED.replace("use: data.py", "use: data.py, train: 60") + "  - {use: quantize.static}\n",
     r"stages\[1\] \(quantize\.static\): calibration uses 60 examples of 60; what it chooses is steadier with 100"),
])  # fmt: skip
def test_what_is_suspicious_is_warned_of(project: Make, chain: str, message: str) -> None:
    found = made(project(chain)).warnings
    assert any(re.search(message, warning) for warning in found), found


@pytest.mark.parametrize(("chain", "message"), [
    (distilling(width=2), r"the student has 94 parameters, 3\.4% of the teacher's 2,7\d\d; where it cannot follow"),
    (TRAINED + "budget: {retention: {min: 0.99}}\n",
     r"budget: 128 test examples can hardly decide a retention of 0\.99; about [\d,]+ would"),
])  # fmt: skip
def test_what_may_turn_out_well_is_a_note(project: Make, chain: str, message: str) -> None:
    built = made(project(chain))
    assert any(re.search(message, note) for note in built.notes), built.notes
    assert not any(re.search(message, warning) for warning in built.warnings)


@pytest.mark.parametrize(("limit", "message"), [
    ("score: 90", r"budget: `score` is 90, and that of this task is 1 at best\. Write `90 %` or 0\.9"),
    ("score: 1.01", "`score` is 1.01, and"),
])  # fmt: skip
def test_a_limit_that_no_score_can_keep_is_refused_before_work(project: Make, limit: str, message: str) -> None:
    refused(project(TRAINED + f"budget: {{{limit}}}\n"), message)


@pytest.mark.parametrize(("score", "best"), [
    (correct, 1), (partial(correct, axis=1), 1), (minus_squared_error, 0), (lambda p, y: p, None),
])  # fmt: skip
def test_the_best_of_our_scores_is_known(score: Any, best: int | None) -> None:
    assert highest(score) == best


def test_nothing_suspicious_gives_no_warning(project: Make) -> None:
    trained = distilling(width=12).replace("stages:", "baseline: [{use: train.supervised, epochs: 1}]\nstages:", 1)
    assert made(project(trained)).warnings == ()


def test_a_model_that_nobody_trained_is_warned_of(project: Make) -> None:
    (warning,) = made(project(distilling(width=12))).warnings
    assert warning.startswith("the model is untrained: there is no `weights:` and no `baseline:`")


@pytest.mark.parametrize(("data", "message"), [
    ("import sys\nsys.exit(0)\n", r"it called sys\.exit\(0\)"),
    ("from networks import TinyNet\n", r"there is no module `networks`\. Write `from \.networks import"),
])  # fmt: skip
def test_a_users_file_cannot_end_the_run_in_silence(project: Make, data: str, message: str) -> None:
    refused(project(**{"data.py": data, "networks.py": ""}), message)


PRUNED = "{use: prune.channels, macs: 0.5, round_to: 1, recovery: {epochs: 1}}"

REGRESSION = """
from dataclasses import replace
import torch
from .data import task as classes

def task():
    made = classes()
    loss = lambda outputs, y: ((outputs["output"][:, 0] - y) ** 2).mean()
    return replace(made, loss=loss, score=lambda p, y: -((p[:, 0] - y) ** 2), logits=False)
"""


@pytest.mark.parametrize("stage", ["{use: distill.logits, student: {use: models.py:TinyNet}}", PRUNED])
def test_distilling_what_are_no_logits_is_refused_before_work(project: Make, stage: str) -> None:
    chain = f"task: {{use: regress.py}}\nmodel: {{use: models.py:TinyNet}}\nstages:\n  - {stage}\n"
    refused(project(chain, **{"regress.py": REGRESSION}), "the task's predictions are no logits")


def test_a_student_of_other_classes_is_refused(project: Make) -> None:
    chain = distilling().replace("models.py:TinyNet, width: 4}", "other.py:Other}")
    other = "from torch import nn\ndef Other():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))\n"
    message = r"stages\[0\] \(distill\.logits\): the student gives logits \(2, 5\); expected \(2, 4\)"
    refused(project(chain, **{"other.py": other}), message)


def test_two_builds_do_not_share_state(project: Make) -> None:
    path = project(TRAINED)
    first, second = made(path), made(path)
    assert first.model.module is not second.model.module
    assert first.data["train"].digest == second.data["train"].digest


def test_a_model_with_another_number_of_classes_than_the_data(project: Make) -> None:
    net = "from torch import nn\n\ndef net(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    chain = "task: {use: data.py}\nmodel: {use: models.py:net, classes: %d}\nstages: [{use: export.onnx}]\n"
    told = "task: the model gives 10 logits, and no label is above 3: 6 classes never occur"
    path = project(chain % 10, **{"models.py": net})
    assert any(told in warning for warning in made(path).warnings)
    path.write_text(f"{chain % 10}limit: 20\n")  # few examples say little of it
    assert not any("logits" in warning for warning in made(path).warnings)
    path.write_text(chain % 4)
    assert not any("logits" in warning for warning in made(path).warnings)
    path.write_text(chain % 3)
    refused(path, r"yaml:1: task, train example 1: a label is 3, and the model gives 3 logits; expected .* 0 to 2")


@pytest.mark.parametrize(("stages", "is_noted"), [
    ("{use: quantize.static, bits: 4}", True),
    ("{use: quantize.dynamic, layers: {head: {codebook: 16}}}", True),
    ("{use: quantize.static, keep: {drop: 0.5}}", True),
    ("{use: quantize.static, keep: {drop: 0.5}}, {use: quantize.pack}", False),
    ("{use: quantize.static, keep: {drop: 0.5, widths: [8, fp16]}}", False),
    ("{use: quantize.static}", False),
    ("{use: quantize.weights, bits: 4}", False),
])  # fmt: skip
def test_few_bits_that_are_not_packed_are_noted(project: Make, stages: str, is_noted: bool) -> None:
    built = made(project(TRAINED.replace("- {use: export.onnx}", f"[{{use: export.onnx}}, {stages}]")))
    text = r"stages\[1\] \(quantize\.\w+\): weights of fewer than 8 bits stand .*Put quantize.pack behind it"
    assert any(re.search(text, note) for note in built.notes) == is_noted
    assert not any("quantize.pack" in warning for warning in built.warnings)


@pytest.mark.parametrize(("student", "in_vain"), [
    ("student: {shrink_of: teacher, width: 2}, teacher: baseline", True),
    ("student: {use: models.py:TinyNet, width: 12}, teacher: baseline", True),
    ("student: {use: models.py:TinyNet, width: 12}", False),
    ("student: {use: incoming}, teacher: baseline", False),
])  # fmt: skip
def test_stages_without_an_effect_on_the_end_are_named(project: Make, student: str, in_vain: bool) -> None:
    before = "baseline: [{use: train.supervised, epochs: 1}]\nstages:\n  - {use: prune.channels, macs: 0.5}"
    chain = re.sub(r"student: \{[^}]*\}", student, distilling(width=12).replace("stages:", before, 1))
    text = r"stages\[0\] \(prune.channels\) has no effect on the end: stages\[1\] \(distill.logits\) takes nothing of"
    assert any(re.search(text, warning) for warning in made(project(chain)).warnings) == in_vain
