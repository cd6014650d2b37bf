"""report.html: one file that a browser shows without network, for a run and for a comparison."""

import base64
import gzip
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from pipeline.records.comparison import ComparisonRecord
from pipeline.records.record import Record
from pipeline.report.html import comparison, run
from pipeline.report.html.views import Section

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent / "templates"
PLOTLY = HERE / "plotly-cartesian-4.1.1.min.js.gz"
"""The bundle of plotly.js without maps and 3D, as npm has it (plotly.js-cartesian-dist-min, MIT), by `gzip -9 -n`."""
CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False, "plotlyServerURL": ""}
"""What plotly is told beside the figure: by itself it offers to upload charts."""


EXCERPT = ("chain", "strategies", "runtimes", "said")
"""The sections of an excerpt, as far as they are there and need no script."""


def write_report(record: Record, path: Path) -> Path:
    """The page of a run at `path`, from its record and the files in its folder; gives the path.

    Args:
        record: of this version or an older one, of a run that ended well or not.
        path: the file to write; its folder is there.
    """
    return _write(path, "run.html.j2", run.sections(record), run.head(record))


def write_comparison(record: ComparisonRecord, path: Path) -> Path:
    """The page of a comparison at `path`, with links to the pages of its runs that are there; gives the path."""
    sections = comparison.sections(record, path.resolve().parent)
    return _write(path, "comparison.html.j2", sections, comparison.head(record))


def excerpt(record: Record | ComparisonRecord) -> str:
    """The page without what plotly draws, to be shown within another: headline, chain or front, warnings."""
    if isinstance(record, Record):
        template, every, head = "run.html.j2", run.sections(record), run.head(record)
    else:
        folder = Path(record.folder)
        template, every, head = "comparison.html.j2", comparison.sections(record, folder), comparison.head(record)
    plain = [section for section in every if not section.parts.get("figures")]
    return "".join(_rendered(template, [section for section in plain if section.key in EXCERPT], head))


def _write(path: Path, template: str, sections: Sequence[Section], head: dict[str, Any]) -> Path:
    """Render and write; what no encoding has, such as half a character, becomes a question mark."""
    # Part by part, for plotly is large, and as a text of some characters four times as large.
    path.write_bytes(b"".join(part.encode("utf-8", "replace") for part in _rendered(template, sections, head)))
    return path


def _rendered(template: str, sections: Sequence[Section], head: dict[str, Any]) -> Iterator[str]:
    from jinja2.utils import htmlsafe_json_dumps

    figures = [figure for section in sections for figure in section.parts.get("figures", []) if figure.plots]
    script = _script((HERE / "page.js").read_text("utf-8"))
    sources = [script.encode(), *([gzip.decompress(PLOTLY.read_bytes())] if figures else [])]
    page = _environment().get_template(template)
    return page.generate(
        head,
        sections={section.key: section for section in sections},
        style=Markup((HERE / "style.css").read_text("utf-8")),
        script=script,
        plotly=base64.b64encode(PLOTLY.read_bytes()).decode() if figures else "",
        hashes=" ".join(f"'sha256-{_digest(source)}'" for source in sources),
        figures=htmlsafe_json_dumps({figure.key: [plot.figure for plot in figure.plots] for figure in figures}),
        config=htmlsafe_json_dumps(CONFIG),
    )


@cache
def _environment() -> "Environment":
    """Our templates, each compiled once."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(HERE)
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["coded"] = coded
    return templates


def coded(text: str) -> Markup:
    """A message with what stands in backticks as code; all else is escaped."""
    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:  # a backtick without its other
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _script(source: str) -> Markup:
    """JavaScript with the line ends that a browser makes of them before it looks at the digest."""
    return Markup(source.replace("\r\n", "\n").replace("\r", "\n"))


def _digest(source: bytes) -> str:
    return base64.b64encode(hashlib.sha256(source).digest()).decode()
