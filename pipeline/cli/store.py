"""`shrink store`: list, show, verify, gc."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import AsJson
from pipeline.errors import ConfigError

app = typer.Typer(name="store", help="What is kept of earlier runs.", no_args_is_help=True)

Runs = Annotated[Path, typer.Option(help="Where run folders and the store are.")]


@app.command("list")
def list_(runs: Runs = Path("runs"), as_json: AsJson = False) -> int:
    """Each result with its stage, size, last use, and the runs that rest on it."""
    from rich.console import Console
    from rich.table import Table

    from pipeline.base.formatting import bytes_text
    from pipeline.run.store.gc import listing
    from pipeline.run.store.store import Store

    rows = listing(Store(runs / "store"), runs)
    if as_json:
        print(json.dumps(rows, indent=2))  # noqa: T201
        return 0
    table = Table("key", "stage", "size", "last used", "runs")
    for row in rows:
        table.add_row(row["key"][:12], row["stage"], bytes_text(row["size_bytes"]), row["used"], "\n".join(row["runs"]))
    Console().print(table, highlight=False)
    total = sum(row["size_bytes"] for row in rows)
    Console().print(f"{len(rows)} results, {bytes_text(total)}", highlight=False)
    return 0


@app.command()
def show(key: Annotated[str, typer.Argument(help="A key or its first characters.")], runs: Runs = Path("runs")) -> int:
    """What the key of a result was made of."""
    from pipeline.run.store.gc import one
    from pipeline.run.store.store import Store

    print(json.dumps(one(Store(runs / "store"), key).parts, indent=2, sort_keys=True))  # noqa: T201
    return 0


@app.command()
def verify(runs: Runs = Path("runs")) -> int:
    """Compare every file with its manifest. Exit code 1 where one differs; a run puts such results aside."""
    from pipeline.run.store.gc import damaged
    from pipeline.run.store.store import Store

    store = Store(runs / "store")
    problems = damaged(store)
    for key, entry_problems in problems.items():
        print(f"{key}: {'; '.join(entry_problems)}")  # noqa: T201
    print(f"{len(store.entries())} results, {len(problems)} damaged")  # noqa: T201
    return 1 if problems else 0


@app.command()
def gc(
    runs: Runs = Path("runs"),
    older_than: Annotated[float | None, typer.Option(help="Days since the last use.")] = None,
    keep: Annotated[str | None, typer.Option(help="Size to keep, such as '10 GB'; the least recently used go.")] = None,
    unreachable: Annotated[bool, typer.Option("--unreachable", help="What no run folder rests on.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it only told.")] = False,
) -> int:
    """Remove results, by age, by size, or those that no run rests on, with weights; a dry run unless told."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    from pipeline.base.formatting import bytes_text
    from pipeline.run.store import gc
    from pipeline.run.store.store import Store

    if older_than is None and keep is None and not unreachable:
        raise ConfigError("no rule is given", where="store gc", expected="--older-than, --keep or --unreachable")
    try:
        keep_bytes = None if keep is None else int(TypeAdapter(ByteSize).validate_python(keep))
    except ValidationError:
        raise ConfigError(f"--keep is {keep}", where="store gc", expected="a size such as '10 GB'") from None
    store = Store(runs / "store")
    chosen = gc.garbage(store, runs, older_than_days=older_than, keep_bytes=keep_bytes, unreachable=unreachable)
    for entry in chosen:
        print(f"{entry.key[:12]} {entry.parts['stage']} {bytes_text(entry.size_bytes())}")  # noqa: T201
    weights = gc.unused_weights(runs) if unreachable else []
    for file in weights:
        print(f"{file.name[:12]} weights {bytes_text(file.stat().st_size)}")  # noqa: T201
    total = bytes_text(sum([*(e.size_bytes() for e in chosen), *(file.stat().st_size for file in weights)]))
    if yes:
        store.sweep()
    for entry in chosen if yes else ():
        store.remove(entry)
    for file in weights if yes else ():
        file.unlink(missing_ok=True)
    outcome = "removed" if yes else "would be removed; --yes removes them"
    print(f"{len(chosen) + len(weights)} results, {total}: {outcome}")  # noqa: T201
    return 0
