"""A file with `strategies:` is one chain for each, with the lines of the file in every error."""

import jsonschema
import pytest
import yaml

from pipeline.build.source import Source, load_config, slug
from pipeline.cli.catalogue import pipeline_schema
from pipeline.compare.strategies import build_all, find_strategies
from pipeline.errors import ConfigError
from tests.aliases import Make

FILE = """
task: {use: data.py}
model: {use: models.py:TinyNet, width: 16}
strategies:
  wide:
    - {use: distill.logits, student: {use: models.py:TinyNet, width: 8}, epochs: 1}
  narrow + quantized:
    - {use: distill.logits, student: {use: models.py:TinyNet, width: 4}, epochs: 1}
    - {use: export.onnx}
    - {use: quantize.dynamic}
compare: {seeds: 2, axes: [size, retention]}
"""


def test_a_strategy_is_a_chain_with_a_name_of_its_own(project: Make) -> None:
    config, _ = load_config(project(FILE), strategy="narrow + quantized")
    assert [entry.use for entry in config.stages] == ["distill.logits", "export.onnx", "quantize.dynamic"]
    assert (config.name, config.compare.seeds) == ("chain-narrow-quantized", 2)


def test_overrides_reach_a_strategy_before_and_after_it_is_chosen(project: Make) -> None:
    config, _ = load_config(project(FILE), ["strategies.wide.0.epochs=3", "stages.0.temperature=2"], "wide")
    assert (config.stages[0].settings["epochs"], config.stages[0].settings["temperature"]) == (3, 2)


def test_an_error_in_a_strategy_names_its_line(project: Make) -> None:
    file = project(FILE.replace("{use: quantize.dynamic}", "{use: quantize.dynamic, width: 8}"))
    (strategy,) = [found for found in find_strategies([file]) if "+" in found.name]
    with pytest.raises(ConfigError, match=rf"{file.name}:10: there is no key `width`"):
        build_all([strategy])


@pytest.mark.parametrize(("change", "strategy", "message"), [
    (("", ""), None, "it has the strategies wide, narrow \\+ quantized. Choose one with --strategy"),
    (("", ""), "wider", "there is no strategy `wider`; did you mean `wide`"),
    (("  wide:", "  a/b:"), "a/b", "`a/b` is no name of a strategy"),
    (("  wide:", "  baseline:"), "wide", "`baseline` is no name of a strategy"),
    (("strategies:", "stages: []\nstrategies:"), "wide", "both `stages` and `strategies`"),
    (("compare:", "compared:"), "wide", "there is no key `compared`; did you mean `compare`"),
    (("axes: [size, retention]", "axes: [size]"), "wide", "`axes` does not fit"),
])  # fmt: skip
def test_a_wrong_choice_is_refused(project: Make, change: tuple[str, str], strategy: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(project(FILE.replace(*change) if change[0] else FILE), strategy=strategy)


def test_a_file_with_stages_has_no_strategies(project: Make) -> None:
    file = project()
    assert Source(file).strategies() == []
    with pytest.raises(ConfigError, match="it has `stages`, not `strategies`"):
        load_config(file, strategy="wide")


def test_several_files_are_told_apart_by_name(project: Make) -> None:
    first = project()
    second = first.with_name("other.yaml")
    second.write_text(first.read_text())
    assert [strategy.name for strategy in find_strategies([first, second])] == ["chain", "other"]
    with pytest.raises(ConfigError, match="more than one strategy is called `chain`"):
        find_strategies([first, first])


def test_other_test_data_is_refused_before_anything_runs(project: Make) -> None:
    first = project(FILE)
    second = first.with_name("other.yaml")
    text = (first.parent / "data.py").read_text()
    (first.parent / "data2.py").write_text(text.replace("quadrants(128, 2)", "quadrants(128, 7)"))
    second.write_text(FILE.replace("data.py", "data2.py").replace("wide:", "far:").replace("narrow +", "thin +"))
    with pytest.raises(ConfigError, match="its test split is another than that of chain-wide"):
        build_all(find_strategies([first, second]))


def test_data_are_read_once_for_all_strategies(project: Make) -> None:
    built = build_all(find_strategies([project(FILE)]))
    assert len({id(one.data) for one in built}) == len({id(one.task.train.dataset) for one in built}) == 1


def test_the_schema_takes_strategies_or_stages_and_not_both(project: Make) -> None:
    schema = pipeline_schema()
    data = yaml.safe_load(FILE)
    jsonschema.validate(data, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "stages": data["strategies"]["wide"]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({key: value for key, value in data.items() if key != "strategies"}, schema)


@pytest.mark.parametrize(
    ("name", "expected"), [("distill + quantize", "distill-quantize"), ("a_b", "a_b"), ("x+", "x")]
)
def test_a_slug_is_fit_for_a_folder(name: str, expected: str) -> None:
    assert slug(name) == expected
