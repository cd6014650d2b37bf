"""How to make a run or a comparison again and how to go on with it, as commands."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from pipeline.base.formatting import shown
from pipeline.records.comparison import ComparisonRecord
from pipeline.records.record import Record


class Command(NamedTuple):
    """What commands do, and the commands as a shell takes them, one a line."""

    says: str
    text: str


def reproduce(record: Record) -> list[Command]:
    """The commands that make the run again; none where it was not made from a pipeline file."""
    if not record.origin:
        return []
    words = ["shrink", "run", record.origin.file]
    if record.origin.strategy:
        words += ["--strategy", record.origin.strategy]
    settings = [setting for setting in record.origin.overrides if not setting.startswith("seed=")]
    words += _overrides([*settings, f"seed={record.seed}"])
    return [Command("Reproduce it", "\n".join([*_checkout(record), shlex.join(words)]))]


def go_on(record: Record) -> list[Command]:
    """The commands that resume the run, build its reports again, and make a folder to deploy where there is a model."""
    commands = [
        _on(record, "Resume it, where it was stopped or failed", "resume"),
        _on(record, "Build this page again", "report"),
    ]
    is_whole = record.final is not None and record.failure is None
    return [*commands, *([_on(record, "Make a folder to deploy", "package")] if is_whole else [])]


def compare_again(record: ComparisonRecord) -> list[Command]:
    """The commands that make the comparison again, and build its reports."""
    files = list(dict.fromkeys(record.origins))
    words = ["shrink", "compare", *(["--runs"] if record.of_runs else []), *files, *_overrides(record.overrides)]
    again = [Command("Compare again", shlex.join(words))] if files else []
    return [*again, _on(record, "Build this page again", "report")]


def lines(commands: list[Command]) -> str:
    """All of the commands, one a line."""
    return "\n".join(command.text for command in commands)


def code_note(environment: dict[str, object]) -> str:
    """What is known of the code that ran, where a commit alone does not tell."""
    commit, dirty = environment.get("git_commit"), environment.get("git_dirty")
    if not isinstance(commit, str):
        return "The pipeline file was in no git repository, so no commit tells which code ran."
    if dirty:
        return f"Files differed from commit {commit[:12]} when it ran, so the commit alone does not reproduce it."
    return ""


def _checkout(record: Record) -> list[str]:
    commit, dirty = record.environment.get("git_commit"), record.environment.get("git_dirty")
    # Anything but a commit's name might be an option.
    is_known = isinstance(commit, str) and re.fullmatch("[0-9a-f]{7,64}", commit)
    return [f"git checkout {commit}"] if is_known and not dirty else []


def _overrides(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _on(record: Record | ComparisonRecord, says: str, word: str) -> Command:
    return Command(says, shlex.join(["shrink", word, str(shown(Path(record.folder)))]))
