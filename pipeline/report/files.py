"""The files of a run or a comparison that others read: summary.md, junit.xml, report.html."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.base.files import whole
from pipeline.records.comparison import FILE, ComparisonRecord
from pipeline.records.folder import load_comparison, load_run
from pipeline.records.record import Record
from pipeline.report.junit import junit
from pipeline.report.summary import comparison_summary, summary

LOG = logging.getLogger("shrinkline")

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
STEP_SUMMARY_BYTES = 1 << 20  # GitHub shows nothing of a step that wrote more

Write = Callable[[Path], object]


def write_files(record: Record | ComparisonRecord) -> None:
    """Write what is read of it into its folder, and append the summary to GitHub's of the step, where there is one.

    A disk that is full or a file that cannot be written is a warning: how the run itself ended is told by its caller.
    A run that is part of a comparison is not appended; the comparison is.
    """
    for name, write in writers(record).items():
        _try(Path(record.folder) / name, write)
    if isinstance(record, ComparisonRecord) or record.comparison is None:
        _append_to_step(summary_of(record))


def writers(record: Record | ComparisonRecord) -> dict[str, Write]:
    """By name what writes each file of a run or a comparison to a path."""

    def html(path: Path) -> object:
        from pipeline.report.html import page  # plotly takes its time

        return page.write_report(record, path) if isinstance(record, Record) else page.write_comparison(record, path)

    tests = {"junit.xml": lambda path: path.write_bytes(junit(record))} if isinstance(record, Record) else {}
    return {
        "summary.md": lambda path: path.write_text(summary_of(record), encoding="utf-8"),
        **tests,
        "report.html": html,
    }


def summary_of(record: Record | ComparisonRecord) -> str:
    """It in Markdown."""
    return summary(record) if isinstance(record, Record) else comparison_summary(record)


def files_of(folder: Path) -> dict[str, Write]:
    """By name what writes each file into the folder of a run or a comparison.

    Raises:
        ConfigError: it is neither, or its record is damaged.
    """
    if (folder / FILE).is_file():
        return writers(load_comparison(folder))
    return writers(load_run(folder, ended=False, expected=f"a record.json or a {FILE}"))


def _try(path: Path, write: Write) -> None:
    try:
        with whole(path) as temporary:
            write(temporary)
    except (OSError, MemoryError) as error:
        LOG.warning("%s is not written: %s", path, error)


def _append_to_step(text: str) -> None:
    """Add a summary to the step's, where it still fits: of one that is too long GitHub shows nothing."""
    target = os.environ.get(STEP_SUMMARY)
    if not target:
        return
    try:
        with Path(target).open("ab") as file:
            added = f"{text.rstrip()}\n\n".encode()
            if file.tell() + len(added) > STEP_SUMMARY_BYTES:
                LOG.warning("the summary does not fit in that of the step, %s, any more", target)
            else:
                file.write(added)
    except OSError as error:
        LOG.warning("the summary of the step is not written: %s", error)
