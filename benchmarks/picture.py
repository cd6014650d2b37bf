"""The pictures in the README: `python benchmarks/picture.py FOLDER FILE`.

Of a run the table as SVG, docs/compress.svg; of a comparison the front of its report as PNG, docs/front.png.
"""

import re
import shutil
import sys
from pathlib import Path

from rich.console import Console

from pipeline.records.record import Record
from pipeline.report.terminal import show


def main(folder: Path, picture: Path) -> None:
    """Draw what the folder of a run or a comparison has."""
    (front if (folder / "comparison.json").exists() else table)(folder, picture)


def front(comparison: Path, picture: Path) -> None:
    """Take the figure of the front out of the report, as a browser shows it."""
    from playwright.sync_api import sync_playwright

    browsers = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=next(filter(None, browsers)), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=2)
        page.goto((comparison / "report.html").resolve().as_uri())
        page.wait_for_selector("figure .main-svg")
        page.locator("figure").first.screenshot(path=picture)
        browser.close()


def table(run: Path, picture: Path) -> None:
    """Draw the table of `run` into `picture`, without the web font that rich would fetch."""
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        show(Record.load(run.resolve()), console)
    svg = console.export_svg(title="make compress")
    picture.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


WIDTH = 128

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
