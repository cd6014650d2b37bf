"""How to make a run or a comparison again and how to go on with it, as the words of commands."""

import re
import shlex
from pathlib import Path

from pipeline.base.formatting import shown
from pipeline.records.comparison import ComparisonRecord
from pipeline.records.record import Record
from pipeline.report.html.views import Command

Words = list[str]


def reproduce(record: Record) -> list[Words]:
    """The commands that make the run again; none where it was not made from a pipeline file."""
    if not record.origin:
        return []
    words = ["shrink", "run", record.origin.file]
    if record.origin.strategy:
        words += ["--strategy", record.origin.strategy]
    settings = [setting for setting in record.origin.overrides if not setting.startswith("seed=")]
    for setting in (*settings, f"seed={record.seed}"):
        words += ["--set", setting]
    return [*_checkout(record), words]


def go_on(record: Record) -> list[Words]:
    """The commands that resume the run, build its reports again, and make a folder to deploy where there is a model."""
    folder = str(shown(Path(record.folder)))
    return [["shrink", word, folder] for word in ("resume", "report", *(["package"] if can_package(record) else []))]


def can_package(record: Record) -> bool:
    """Whether there is a last model, of a run that came to its end."""
    return record.final is not None and record.failure is None


def compare_again(record: ComparisonRecord) -> list[Words]:
    """The commands that make the comparison again, and build its reports."""
    files = list(dict.fromkeys(record.origins))
    settings = [word for setting in record.overrides for word in ("--set", setting)]
    words = ["shrink", "compare", *(["--runs"] if record.of_runs else []), *files, *settings]
    again = [words] if files else []
    return [*again, ["shrink", "report", str(shown(Path(record.folder)))]]


def lines(commands: list[Words]) -> str:
    """Commands as a shell takes them, one a line."""
    return "\n".join(map(shlex.join, commands))


def _checkout(record: Record) -> list[Words]:
    commit, dirty = record.environment.get("git_commit"), record.environment.get("git_dirty")
    # Anything but a commit's name might be an option.
    is_known = isinstance(commit, str) and re.fullmatch("[0-9a-f]{7,64}", commit)
    return [["git", "checkout", str(commit)]] if is_known and not dirty else []


def of_run(record: Record) -> list[Command]:
    """Reproduce, resume, report, package; without what the record does not know."""
    commands = [Command("Reproduce it", lines(reproduce(record)))] if record.origin else []
    folder = shown(Path(record.folder))
    commands.append(_on("Resume it, where it was stopped or failed", "resume", folder))
    commands.append(_on("Build this page again", "report", folder))
    return [*commands, _on("Make a folder to deploy", "package", folder)] if can_package(record) else commands


def of_comparison(record: ComparisonRecord) -> list[Command]:
    """Compare again, and build the page again."""
    again, page = compare_again(record) if record.origins else ([], compare_again(record)[-1])
    commands = [Command("Compare again", lines([again]))] if again else []
    return [*commands, Command("Build this page again", lines([page]))]


def code_note(environment: dict[str, object]) -> str:
    """What is known of the code that ran, where a commit alone does not tell."""
    commit, dirty = environment.get("git_commit"), environment.get("git_dirty")
    if not isinstance(commit, str):
        return "The pipeline file was in no git repository, so no commit tells which code ran."
    if dirty:
        return f"Files differed from commit {commit[:12]} when it ran, so the commit alone does not reproduce it."
    return ""


def _on(says: str, word: str, folder: Path) -> Command:
    return Command(says, lines([["shrink", word, str(folder)]]))
