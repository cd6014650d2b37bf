"""The picture in the README: the table of a run as SVG. `python benchmarks/picture.py runs/RUN docs/compress.svg`."""

import re
import sys
from pathlib import Path

from rich.console import Console

from pipeline.record import Record
from pipeline.report.terminal import show


def main(run: Path, picture: Path) -> None:
    """Draw the table of `run` into `picture`, without the web font that rich would fetch."""
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        show(Record.load(run), console)
    svg = console.export_svg(title="make compress")
    picture.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


WIDTH = 128

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
