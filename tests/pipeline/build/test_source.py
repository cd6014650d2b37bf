"""A pipeline file is read strictly, and every error says the file, the line and what was meant."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.build.config import PipelineConfig
from pipeline.build.source import load_config
from pipeline.errors import ConfigError

GOOD = """\
task: {use: digits}
model:
  use: models.py:Net
  width: 16
stages:
  - use: distill.logits
    temperature: 2
  - use: export.onnx
budget:
  retention: {min: 0.95}
  size: {max: 40 kB}
seed: 3
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "my.yaml"
    path.write_text(text)
    return path


def read(folder: Path, text: str, *overrides: str) -> PipelineConfig:
    return load_config(write(folder, text), overrides)[0]


def test_a_good_file_is_read_whole(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert (config.name, config.seed, config.folder) == ("my", 3, tmp_path.resolve())
    assert (config.model.use, config.model.arguments) == ("models.py:Net", {"width": 16})
    assert config.model.folder == config.task.folder == tmp_path.resolve()
    assert [(s.use, s.settings) for s in config.stages] == [("distill.logits", {"temperature": 2}), ("export.onnx", {})]
    assert (config.budget.retention.min, config.budget.size.max) == (0.95, 40_000)


@pytest.mark.parametrize(("before", "after", "line", "message"), [
    ("seed: 3", "sed: 3", 12, "there is no key `sed`; did you mean `seed`?"),
    ("stages:", "stagse:", 5, "there is no key `stagse`; did you mean `stages`"),
    ("retention:", "retension:", 10, "there is no key `retension`; did you mean `retention`?"),
    ("min: 0.95", "mni: 0.95", 10, "there is no key `mni`; did you mean `min`?"),
    ("seed: 3", "folder: data", 12, "there is no key `folder`"),
    ("seed: 3", "task: {use: x}", 12, "the key `task` stands here and in line 1. Keep one of them."),
    ("width: 16", "use: other.py", 4, "the key `use` stands here and in line 3. Keep one of them."),
    ("{min: 0.95}", "{min: 0.95, min: 0.9}", 10, "the key `min` stands here and in line 10. Keep one of them."),
    ("seed: 3", "seed: many", 12, "`seed` is 'many'; expected a valid integer"),
    ("seed: 3", "seed: -1", 12, "`seed` is -1; expected greater than or equal to 0"),
    ("seed: 3", "device: tpu", 12, "`device` is 'tpu'; expected 'auto', 'cpu' or 'cuda'"),
    ("seed: 3", "name: a/b", 12, "`name` is 'a/b'; expected a name must be fit for a folder"),
    ("seed: 3", 'name: "a\\e[31m"', 12, "expected a name must be fit for a folder"),
    ("seed: 3", f"name: {'x' * 201}", 12, "a name must be fit for a folder, with at most 200 bytes"),
    ("seed: 3", "seed: yes", 12, "`seed` is 'yes'; expected a valid integer"),
    ("min: 0.95", "min: 0", 10, "`min` is 0; expected greater than 0"),
    ("min: 0.95", "min: .nan", 10, "`min` is nan"),
    ("40 kB", "40 kilos", 11, "`max` is '40 kilos'; expected a size, such as 40 kB or 1 MiB"),
    ("40 kB", "-1", 11, "`max` is -1"),
    ("  use: models.py:Net\n", "", 2, "the key `use` is missing. Add `use:`."),
    ("use: export.onnx", "opset: 20", 8, "the key `use` is missing. Add `use:`."),
    ("use: export.onnx", "export.onnx", 8, "'export.onnx'"),
    ("{use: digits}", "[digits]", 1, "`task` does not fit"),
    ("models.py:Net", "${NET}.py:Net", 3, "`use` has ${NET}, and a file's values are taken as they are written. Let "
     'the shell fill it in: --set model.use="${NET}.py:Net".'),
    ("seed: 3", "seed: 3\n\tdevice: cpu", 13, "this is not YAML: found character '\\t' that cannot start any token"),
    ("seed: 3", "seed: [3", 13, "this is not YAML"),
    ("seed: 3", "seed: *three", 12, "this is not YAML: found undefined alias 'three'"),
    ("seed: 3", "seed: !!python/name:os.system", 12, "this is not YAML: could not determine a constructor"),
])  # fmt: skip
def test_an_error_says_file_line_and_fault(tmp_path: Path, before: str, after: str, line: int, message: str) -> None:
    assert GOOD.count(before) == 1
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read(tmp_path, GOOD.replace(before, after))
    assert str(caught.value).startswith(f"{tmp_path / 'my.yaml'}:{line}: ")


@pytest.mark.parametrize("missing", ["task", "model", "stages"])
def test_a_missing_key_is_named(tmp_path: Path, missing: str) -> None:
    lines = re.sub(rf"^{missing}:.*\n(?: .*\n)*", "", GOOD, flags=re.MULTILINE)
    with pytest.raises(ConfigError, match=rf"my\.yaml: the key `{missing}` is missing\. Add `{missing}:`"):
        read(tmp_path, lines)


@pytest.mark.parametrize(("text", "message"), [
    ("", "there is no pipeline in it; expected the keys task, model and stages"),
    ("# nothing\n", "there is no pipeline in it"),
    ("- a\n- b\n", "there is no pipeline in it"),
    ("a: 1\n---\nb: 2\n", "this is not YAML: but found another document"),
    ("a: &a [*a]\n", "this is not YAML"),
    ("stages: " + "[" * 5000, "this is not YAML"),
    ("a: \x07\n", "this is not YAML"),
    ("task: a\nstages: []\nmodel: {use: b}\n", r"my\.yaml:2: `stages` does not fit; expected list .* at least 1"),
])  # fmt: skip
def test_what_is_no_pipeline_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(("path", "message"), [
    ("mi.yaml", r"there is no file .*mi\.yaml; did you mean `my\.yaml`"),
    ("", r"this is a folder; expected a pipeline file"),
    ("my.yaml/inner.yaml", "it cannot be read"),
])  # fmt: skip
def test_what_is_no_file_is_refused(tmp_path: Path, path: str, message: str) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes("name: Größe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"my\.yaml: it cannot be read: 'utf-8' codec"):
        load_config(path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + GOOD).seed == 3


@pytest.mark.parametrize(("override", "of", "value"), [
    ("seed=7", lambda c: c.seed, 7),
    ("device=cpu", lambda c: c.device, "cpu"),
    ("stages.0.temperature=1e-3", lambda c: c.stages[0].settings["temperature"], 0.001),
    ("stages.1.opset=18", lambda c: c.stages[1].settings["opset"], 18),
    ("stages.1={use: other.stage, x: [1, 2]}", lambda c: c.stages[1].settings["x"], [1, 2]),
    ("model.width=8", lambda c: c.model.arguments["width"], 8),
    ("model.name=a=b", lambda c: c.model.arguments["name"], "a=b"),
    ("budget.size.max=1 MiB", lambda c: c.budget.size.max, 2**20),
    ("budget={params: {max: 5}}", lambda c: c.budget.params.max, 5),
    ("budget.macs={max: 5}", lambda c: c.budget.macs.max, 5),
])  # fmt: skip
def test_an_override_replaces_or_adds_a_value(tmp_path: Path, override: str, of: Any, value: Any) -> None:
    assert of(read(tmp_path, GOOD, override)) == value


ALIASED = """\
x-training: &training {epochs: 3, nested: &inner {width: 8}}
task: {use: digits}
model: {use: models.py:Net, width: &width [1, 2]}
baseline:
  - {use: train.supervised, <<: *training}
  - {use: train.supervised, <<: *training, epochs: 4}
stages:
  - {use: distill.logits, student: *inner, widths: *width}
  - {use: distill.logits, student: *inner, widths: *width}
"""


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("baseline.0.epochs=9", ("baseline", 0, "epochs")),
        ("baseline.0.nested.width=9", ("baseline", 0, "nested", "width")),
        ("stages.1.student.width=9", ("stages", 1, "student", "width")),
        ("stages.0.widths.1=9", ("stages", 0, "widths", 1)),
        ("model.width.1=9", ("model", "arguments", "width", 1)),
    ],
)
@pytest.mark.parametrize("strategies", [False, True])
def test_an_override_of_an_anchored_value_changes_that_place_alone(
    tmp_path: Path, override: str, path: tuple[Any, ...], strategies: bool
) -> None:
    text, strategy = ALIASED, None
    if strategies:
        text, strategy = ALIASED.replace("stages:", "strategies:\n  b: &b [*inner]\n  a:"), "a"
    before, after = (
        load_config(write(tmp_path, text), overrides, strategy)[0].model_dump(mode="json")
        for overrides in ([], [override])
    )
    *above, last = path
    place: Any = before
    for key in above:
        place = place[key]
    place[last] = 9
    assert before == after


def test_keys_with_x_are_a_place_for_anchors_and_nowhere_else(tmp_path: Path) -> None:
    assert "x-training" not in read(tmp_path, ALIASED).model_dump_json()
    with pytest.raises(ConfigError, match=r"--set x-training\.epochs=1: `x-training` holds anchors"):
        read(tmp_path, ALIASED, "x-training.epochs=1")
    with pytest.raises(ConfigError, match="there is no key `x-y`"):
        read(tmp_path, GOOD.replace("{min: 0.95}", "{min: 0.95, x-y: 1}"))


def test_the_last_override_wins(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(("override", "message"), [
    ("seed", "there is no value; expected path=value"),
    ("=3", "there is no value"),
    ("budgt.size.max=3", "there is no `budgt` in `the file`; did you mean `budget`?"),
    ("budget.sise.max=3", "there is no `sise` in `budget`; did you mean `size`?"),
    ("stages.2.temperature=3", "`stages` has no position 2; expected 0 to 1"),
    ("stages.2=3", "`stages` has no position 2; expected 0 to 1"),
    ("stages.-1.temperature=3", "`stages` has no position -1; expected 0 to 1"),
    ("stages.first.temperature=3", "`stages` has no position first"),
    ("seed.x=3", "`seed` is not a mapping"),
    ("seed.x.y=3", "there is no `x` in `seed`"),
    ("seed=[3", "`[3` is not YAML"),
    ("sed=3", "there is no key `sed`; did you mean `seed`?"),
    ("seed=x", "`seed` is 'x'; expected a valid integer"),
    ("budget={retention: {mni: 3}}", "there is no key `mni`; did you mean `min`?"),
    ("budget={retention: {min: -3}}", "`min` is -3"),
])  # fmt: skip
def test_a_wrong_override_is_named_and_not_a_line_of_the_file(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read(tmp_path, GOOD, override)
    assert str(caught.value).startswith(f"--set {override}: ")


@pytest.mark.parametrize(("text", "value"), [
    ("1e-3", 0.001),
    ("1E3", 1000.0),
    ("-2.5e+1", -25.0),
    ("1.e-2", 0.01),
    ("0.5", 0.5),
    ("12", 12),
    ("1e", "1e"),
    ("e3", "e3"),
    ("'1e-3'", "1e-3"),
    ("010", 10),
    ("0o10", 8),
    ("0x1F", 31),
    ("-7", -7),
    ("1:30", "1:30"),
    ("1_0.5", "1_0.5"),
    (".5", 0.5),
    ("True", True),
    ("yes", "yes"),
    ("off", "off"),
    ("y", "y"),
    ("null", None),
])  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: Any) -> None:
    found = read(tmp_path, GOOD.replace("width: 16", f"width: {text}")).model.arguments["width"]
    assert (found, type(found)) == (value, type(value))


def test_sizes_take_units(tmp_path: Path) -> None:
    for text, value in ("40 kB", 40_000), ("1 MiB", 2**20), ("1.5MB", 1_500_000), ("512", 512), ("0", 0):
        assert read(tmp_path, GOOD.replace("40 kB", text)).budget.size.max == value


ANCHORS = """\
task: {use: digits}
model: {use: models.py:Net}
baseline:
  - &training {use: train.supervised, epochs: 3, learning_rate: 1e-2}
stages:
  - <<: *training
    epochs: 5
  - *training
"""


def test_anchors_and_merge_keys_are_followed(tmp_path: Path) -> None:
    config = read(tmp_path, ANCHORS)
    assert [s.settings["epochs"] for s in (*config.baseline, *config.stages)] == [3, 5, 3]
    assert {s.settings["learning_rate"] for s in config.stages} == {0.01}


def test_an_error_in_a_merged_mapping_points_at_where_it_was_merged(tmp_path: Path) -> None:
    text = GOOD.replace("retention: {min: 0.95}", "retention: {<<: {mni: 1}}")
    with pytest.raises(ConfigError, match=r"my\.yaml:10: there is no key `mni`; did you mean `min`"):
        read(tmp_path, text)


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "my.yaml:17: this is not YAML: it has more than 20,000 values where aliases are"),
        ("stages: &a [*a]\n", "my.yaml:13: this is not YAML: an alias refers to what it stands in"),
        ("stages: &a {<<: *a}\n", "my.yaml:13: this is not YAML: an alias refers to what it stands in"),
        ('name: "a\\0b"\n', "my.yaml:13: this is not YAML: a text has a character that no file has"),
        ('name: "\\ud800"\n', "my.yaml:13: this is not YAML: a text has a character that no file has"),
        ("seed: !!int ''\n", "my.yaml:13: this is not YAML: a value does not fit its tag int"),
        ("seed: !!bool 3\n", "my.yaml:13: this is not YAML: a value does not fit its tag bool"),
        ("seed: !!timestamp 3\n", "my.yaml:13: this is not YAML: a value does not fit its tag timestamp"),
        ("seed: 2020-13-45\n", "my.yaml:13: this is not YAML: a value does not fit its tag timestamp"),
        ("seed: !!python/object:os.system 3\n", "my.yaml:13: this is not YAML: could not determine a constructor"),
        ("[" * 1000, "my.yaml: this is not YAML: maximum recursion depth exceeded"),
    ],
    ids=lambda text: text[:30].strip(),
)
def test_what_is_hostile_or_fits_no_tag_is_an_error_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    good = "" if text.startswith("[") else GOOD.replace("seed: 3\n", "x: y\n")
    with pytest.raises(ConfigError, match=re.escape(message)):
        read(tmp_path, good + text)


@pytest.mark.parametrize("value", ["&a [*a]", "!!int ''", "!!bool 3", '"a\\0b"', "[" * 1000, "*a", "{<<: 3}"])
def test_an_override_of_the_same_kind_is_an_error_too(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set seed=.* is not YAML: .*\. Quote it\.$"):
        read(tmp_path, GOOD, f"seed={value}")


def test_as_many_values_as_a_large_file_has_are_read(tmp_path: Path) -> None:
    text = GOOD.replace("width: 16", f"width: [{'1, ' * 5_000}]")
    assert len(read(tmp_path, text).model.arguments["width"]) == 5_000
