"""The workflows fit their schemas, and their steps are run here as a runner would, with what we own."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import check_jsonschema
import pytest
import yaml

from pipeline.records.record import Record
from tests.users import MINE_ALONE, stage_file

Make = Callable[..., Path]
Step = dict[str, Any]

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
WORKFLOWS = [*sorted((ROOT / ".github" / "workflows").glob("*.yml")), ROOT / "docs" / "example-workflow.yml"]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
GITLAB = re.findall(r'```yaml title="\.gitlab-ci\.yml"\n(.*?)```', (ROOT / "docs" / "ci.md").read_text(), re.DOTALL)
OWN_VERSIONS = "--constraint {own}/constraints.txt -- {own}[optimum]"
REPORTS = {"record.json", "report.html", "summary.md", "junit.xml"}

MINE = """
if self.breaks:
    raise ValueError("it broke")
module = copy.deepcopy(model.module)
module.head.bias.data += 1
return replace(model, module=module)
"""


@pytest.fixture
def chain(project: Make) -> Make:
    """chain(limit): a pipeline file that takes a moment, with a limit of size."""
    return lambda limit="1 MB": project(
        f"{MINE_ALONE}budget: {{size: {{max: {limit}}}}}\n", **{"mine.py": stage_file(MINE, "breaks: bool = False")}
    )


@dataclass
class Job:
    """What a runner keeps of the steps of an action: outputs, outcomes, uploads, and the summary of the page."""

    inputs: dict[str, str]
    folder: Path
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    uploads: list[Path] = field(default_factory=list)
    summary: str = ""
    code: int = 0
    said: str = ""

    def go(self, leave_out: tuple[str, ...] = ("install",)) -> "Job":
        """Run the steps in order; those in `leave_out` count as done."""
        for number, step in enumerate(ACTION["runs"]["steps"]):
            name = step.get("id", str(number))
            if not self.holds(step.get("if", "")):
                self.outcomes[name] = "skipped"
            elif "run" in step and name not in leave_out:
                self.shell(name, step)
            else:
                self.outcomes[name] = "success"
                if step.get("uses", "").startswith("actions/upload-artifact@"):
                    self.uploads.append(Path(self.filled(step["with"]["path"])))
        return self

    def shell(self, name: str, step: Step) -> None:
        """One step, in bash as GitHub calls it, with files for what it says."""
        script, output, summary = (self.folder / f"{name}.{kind}" for kind in ("sh", "output", "summary"))
        script.write_text(step["run"])
        output.touch()
        own = {key: self.filled(value) for key, value in step.get("env", {}).items()}
        places = {"GITHUB_OUTPUT": output, "GITHUB_STEP_SUMMARY": summary, "RUNNER_TEMP": self.folder}
        given = {**os.environ, **{key: str(path) for key, path in places.items()}, **own}
        given["PATH"] = f"{BIN}:{given['PATH']}"
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        done = subprocess.run(words, cwd=self.folder, env=given, capture_output=True, text=True, check=False)
        self.outputs[name] = dict(line.split("=", 1) for line in output.read_text().splitlines())
        self.outcomes[name] = "failure" if done.returncode else "success"
        self.code = self.code or done.returncode
        self.summary += summary.read_text() if summary.exists() else ""
        self.said += done.stderr

    def holds(self, condition: str) -> bool:
        """The few conditions that an action of ours has."""
        parts = [part.strip() for part in condition.split("&&") if part.strip()]
        fine = "always()" in parts or "failure" not in self.outcomes.values()
        return fine and all(self.part(part) for part in parts if part != "always()")

    def part(self, text: str) -> bool:
        """One comparison of a value with a literal."""
        found = re.fullmatch(r"([\w.-]+) (==|!=) '(\w*)'", text)
        assert found, text
        name, sign, literal = found.groups()
        return (self.value(name) == literal) is (sign == "==")

    def filled(self, text: str) -> str:
        """The text with its expressions replaced."""
        return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: self.value(found[1]), text)

    def value(self, name: str) -> str:
        """Of an input, or of an output or the outcome of a step."""
        kind, *keys = name.split(".")
        if kind == "inputs":
            (key,) = keys
            default = str(ACTION["inputs"][key].get("default", ""))
            return self.inputs.get(key, default)
        assert kind == "steps", name
        if keys[1] == "outcome":
            return self.outcomes.get(keys[0], "skipped")
        return self.outputs.get(keys[0], {}).get(keys[2], "")

    def output(self, name: str) -> str:
        """An output of the action."""
        return self.filled(ACTION["outputs"][name]["value"])


@pytest.fixture
def act(tmp_path: Path) -> Callable[..., Job]:
    """act(config, **inputs): the action, run in a folder of its own."""
    (tmp_path / "job").mkdir()
    return lambda config, **inputs: Job({"config": str(config), **inputs}, tmp_path / "job").go()


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def steps() -> Iterator[tuple[str, Step]]:
    """Every step that we publish, with the file that it is from."""
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            yield from ((path.name, step) for step in job["steps"])
    yield from (("action.yml", step) for step in ACTION["runs"]["steps"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
@pytest.mark.parametrize("schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_a_workflow_fits_its_schema(path: Path, schema: str) -> None:
    check(path, schema)


def test_the_action_fits_its_schema() -> None:
    check(ROOT / "action.yml", "vendor.github-actions")


def test_the_example_for_gitlab_fits_its_schema(tmp_path: Path) -> None:
    (example,) = GITLAB
    (tmp_path / "gitlab.yml").write_text(example)
    check(tmp_path / "gitlab.yml", "vendor.gitlab-ci")


def check(path: Path, schema: str) -> None:
    """What the command `check-jsonschema` does; it prints what does not fit."""
    assert not check_jsonschema.main(["--builtin-schema", schema, str(path)], standalone_mode=False)


def test_no_expression_stands_in_a_script() -> None:
    """What is put into a script by the runner is run: a branch may be named `$(curl ...)`."""
    scripts = [(name, step["run"]) for name, step in steps() if "run" in step]
    assert len(scripts) > 5
    assert [(name, text) for name, text in scripts if "${{" in text] == []


def test_other_actions_are_of_one_version() -> None:
    used = [step["uses"] for _, step in steps() if "uses" in step]
    assert used
    assert [use for use in used if use != "./" and not re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", use)] == []
    by_name = {(use.partition("@")[0], use) for use in used}
    assert len(by_name) == len({name for name, _ in by_name})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_nothing_else(path: Path) -> None:
    found = yaml.safe_load(path.read_text())
    assert found["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in found[True]  # what YAML 1.1 makes of `on`
    for job in found["jobs"].values():
        assert "permissions" not in job
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_gives_the_action_the_inputs_that_it_has(path: Path) -> None:
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        for step in job["steps"]:
            if step.get("uses", "") == "./" or "/shrinkline@" in step.get("uses", ""):
                assert set(step["with"]) <= set(ACTION["inputs"])
                assert {name for name, given in ACTION["inputs"].items() if given.get("required")} <= set(step["with"])


def test_the_inputs_and_outputs_of_the_action_are_documented() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "ci.md").read_text(), re.MULTILINE)
    assert rows == [*ACTION["inputs"], *ACTION["outputs"]]


def test_the_exit_codes_are_documented_and_handled() -> None:
    from pipeline import errors
    from pipeline.cli import app
    from pipeline.cli.run import EXIT_CODES

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ShrinkError)]
    codes = {kind.exit_code for kind in kinds} | {*EXIT_CODES.values(), app.BUG, 143}
    page, script = ((ROOT / "docs" / name).read_text() for name in ("ci.md", "ci.sh"))
    rows = re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(",")} == codes
    arms = re.findall(r"^  ([\d |]+)\) said=", script, re.MULTILINE)
    assert {int(code) for arm in arms for code in arm.split("|")} == codes - {app.BUG}  # the last arm has what is left


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, OWN_VERSIONS),
        (
            {"torch-index": "file:///cpu"},
            f"--extra-index-url file:///cpu {OWN_VERSIONS}",
        ),
        ({"install": "shrinkline==0.1.0; touch x"}, "-- shrinkline==0.1.0; touch x"),
    ],
)
def test_the_action_installs_itself_or_what_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], words: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text('#!/bin/sh\necho "$@" > called\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    monkeypatch.setattr(sys.modules[__name__], "BIN", tmp_path / "bin")
    monkeypatch.setenv("GITHUB_ACTION_PATH", "/own")
    job = Job({"config": "x", **given}, tmp_path)
    (step,) = (step for step in ACTION["runs"]["steps"] if step.get("id") == "install")
    job.shell("install", step)
    assert job.code == 0, job.said
    expected = "-m pip install --quiet " + words.format(own="/own")
    assert (tmp_path / "called").read_text().strip() == expected
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_model_that_keeps_its_budget_passes_and_is_uploaded(chain: Make, act: Callable[..., Job]) -> None:
    job = act(chain())
    assert job.code == 0, job.said
    (folder,) = job.uploads
    assert files(folder) >= {*REPORTS, "package"}
    model = folder / "package" / "model.onnx"
    assert job.output("verdict") == "pass"
    assert job.output("exit-code") == "0"
    assert int(job.output("size_bytes")) == model.stat().st_size
    assert Path(job.output("run"), "record.json").read_text() == (folder / "record.json").read_text()
    assert job.summary.startswith("## ✅ chain: pass")


@pytest.mark.slow
def test_a_model_that_is_too_large_fails_and_is_uploaded_all_the_same(chain: Make, act: Callable[..., Job]) -> None:
    job = act(chain(limit="1 kB"))
    assert job.code == 1, job.said
    assert (job.output("verdict"), job.output("exit-code")) == ("fail", "1")
    assert files(job.uploads[0]) >= {*REPORTS, "package"}
    assert job.summary.startswith("## ❌ chain: fail")


@pytest.mark.slow
def test_a_stage_that_fails_leaves_its_reports_and_no_package(chain: Make, act: Callable[..., Job]) -> None:
    job = act(chain(), overrides="stages.0.breaks=true")
    assert job.code == 3, job.said
    assert (job.output("verdict"), job.output("exit-code"), job.output("size_bytes")) == ("failed", "3", "")
    assert files(job.uploads[0]) >= REPORTS
    assert "package" not in files(job.uploads[0])
    root = ElementTree.parse(job.uploads[0] / "junit.xml").getroot()
    assert root.find("testcase/error") is not None
    assert "it broke" in job.summary


@pytest.mark.slow
def test_a_file_that_is_not_there_ends_with_2_and_uploads_nothing(tmp_path: Path, act: Callable[..., Job]) -> None:
    job = act(tmp_path / "no.yaml; touch touched")
    assert job.code == 2, job.said
    assert (job.output("verdict"), job.output("run"), job.output("exit-code")) == ("failed", "", "2")
    assert job.uploads == []
    assert "touched" not in files(tmp_path / "job")


@pytest.mark.slow
def test_overrides_are_taken_a_line_each_and_never_run(chain: Make, act: Callable[..., Job], tmp_path: Path) -> None:
    hostile = 'name=a b $(touch touched) `touch touched` "'
    job = act(chain(), overrides=f"seed=3\n\n  {hostile}\n stages.0.breaks=false \n", runs="my runs", upload="")
    assert job.code == 0, job.said
    assert "touched" not in files(tmp_path / "job")
    record = Record.load(Path(job.output("run")))
    assert record.origin.overrides == ["seed=3", hostile, "stages.0.breaks=false"]
    assert Path(job.output("run")).parent == tmp_path / "job" / "my runs"
    assert job.uploads == []


def shell(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """docs/ci.sh, in a folder of its own."""
    folder.mkdir()
    given = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    script = ["bash", str(ROOT / "docs" / "ci.sh"), *words]
    return subprocess.run(script, cwd=folder, env=given, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_script_ends_with_the_code_of_a_budget_that_is_not_kept(chain: Make, tmp_path: Path) -> None:
    done = shell(tmp_path / "job", str(chain(limit="1 kB")))
    assert done.returncode == 1, done.stderr
    assert "shrink ended with 1: the budget is not kept" in done.stderr
    assert files(tmp_path / "job" / "artifacts") == {*REPORTS, "run.log", "package"}


@pytest.mark.slow
def test_the_script_ends_with_0_when_it_is_kept(chain: Make, tmp_path: Path) -> None:
    done = shell(tmp_path / "job", str(chain()), "--set", "seed=1")
    assert done.returncode == 0, done.stderr
    record = Record.model_validate_json((tmp_path / "job" / "artifacts" / "record.json").read_text())
    assert (record.seed, record.verdict) == (1, "pass")


@pytest.mark.slow
def test_the_script_ends_with_3_and_the_reports_when_a_stage_failed(chain: Make, tmp_path: Path) -> None:
    done = shell(tmp_path / "job", str(chain()), "--set", "stages.0.breaks=true")
    assert done.returncode == 3, done.stderr
    assert files(tmp_path / "job" / "artifacts") == {*REPORTS, "run.log"}


def test_the_script_ends_with_2_when_there_is_no_file(tmp_path: Path) -> None:
    done = shell(tmp_path / "job", "no.yaml")
    assert done.returncode == 2, done.stderr
    assert "the pipeline file cannot work" in done.stderr
