"""`shrink runtimes`: list them; install."""

import json
from typing import Annotated

import typer

from pipeline.cli.options import AsJson

app = typer.Typer(name="runtimes", invoke_without_command=True)


@app.callback()
def listing(context: typer.Context, as_json: AsJson = False) -> int:
    """List the runtimes that benchmark.latency can time in: whether they are here, and the command where not."""
    if context.invoked_subcommand:
        return 0
    from rich.console import Console

    from pipeline.cli.catalogue import describe_runtimes, show_runtimes

    if as_json:
        print(json.dumps(describe_runtimes(), indent=2))  # noqa: T201
    else:
        show_runtimes(Console())
    return 0


@app.command()
def install(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As `shrink runtimes` lists them.")],
) -> int:
    """Make the environments of runtimes that have their own: pinned packages, whole or not there."""
    from pipeline.cli.catalogue import runtime_called

    for runtime in [runtime_called(name) for name in names]:
        folder = runtime.install(lambda line: typer.echo(line, err=True))
        print(folder)  # noqa: T201
    return 0
