"""The commands that make a run or a comparison again, as the page shows them."""

from pathlib import Path

from pipeline.comparison import ComparisonRecord
from pipeline.record import Record
from pipeline.report.commands import can_package, compare_again, lines, reproduce
from pipeline.report.html.views import Command
from pipeline.report.terminal import shown


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
