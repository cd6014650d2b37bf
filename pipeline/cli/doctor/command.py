"""`shrink doctor`: what is installed, and what a config would miss."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.build.syntax.carried import located
from pipeline.cli.options import AsJson, Runs

MISSING = 2

Config = Annotated[
    Path | None, typer.Argument(help="A pipeline file in YAML; `digits` comes with the package.", show_default=False)
]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Such as task.path=FOLDER.")]
RequireTracking = Annotated[bool, typer.Option("--require-tracking", help="MLflow that is down counts as missing.")]


def doctor(
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  # typer reads it and does not keep it
    runs: Runs = Path("runs"),
    require_tracking: RequireTracking = False,
    as_json: AsJson = False,
) -> int:
    """Say what is installed, which runtimes are here, what the machine has, and what a config would miss.

    Exit codes: 0 nothing is missing, 2 something that is needed is.
    """
    from rich.console import Console

    from pipeline.cli.doctor.examine import examine
    from pipeline.cli.doctor.finding import as_json as to_json
    from pipeline.cli.doctor.finding import is_missing, show

    config = located(config) if config else None
    examination = examine(config, overrides=overrides, runs=runs, require_tracking=require_tracking)
    if as_json:
        print(json.dumps(to_json(examination), indent=2))  # noqa: T201
    else:
        show(examination, Console(width=None if sys.stdout.isatty() else 160))
    return MISSING if is_missing(examination) else 0
