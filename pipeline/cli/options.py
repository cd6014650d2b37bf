"""The options that several commands have, each declared once."""

from pathlib import Path
from typing import Annotated, Any

import typer

Strategy = Annotated[str | None, typer.Option(help="Which one of a file with `strategies:`.", show_default=False)]
Config = Annotated[
    Path, typer.Argument(help="A pipeline file in YAML; `digits` comes with the package.", show_default=False)
]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Such as stages.1.temperature=2.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Examples of each split at most, for a trial.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Runs = Annotated[Path, typer.Option(help="Where run folders and the MLflow database are made.")]
RequireTracking = Annotated[bool, typer.Option("--require-tracking", help="Exit 7 where MLflow is down.")]
LockTimeout = Annotated[float | None, typer.Option(help="Seconds to wait for a run that makes the same; then exit 75.")]
Processes = Annotated[
    int | None,
    typer.Option(min=1, help="Train over so many processes on this machine; torchrun starts them on several."),
]
Unsafe = Annotated[
    bool,
    typer.Option("--allow-unsafe-load", help="Unpickle weights whose sha256 `model:` has; that runs code of theirs."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")]

# typer carries its own copy of click's errors and exports one of them; this is the one above it.
UsageError: Any = typer.BadParameter.__base__
