"""`shrink report` and `shrink package`: what others read of a run, and what they deploy."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError

DEFAULT = "onnxruntime"

Runs = Annotated[list[Path], typer.Argument(help="Folders of runs or of comparisons.", show_default=False)]


def report(run: Runs) -> int:
    """Build report.html, summary.md and junit.xml again, from the folder alone; print where they are."""
    from pipeline.base.files import whole
    from pipeline.report.files import Write, files_of

    report_files: list[tuple[Path, dict[str, Write]]] = [(folder, files_of(folder)) for folder in run]
    for folder, files in report_files:
        for name, write in files.items():
            with whole(folder / name) as temporary:
                write(temporary)
            print(folder / name)  # noqa: T201
    return 0


def package(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="Where to; RUN/package by default.", show_default=False)] = None,
    unpacked: Annotated[bool, typer.Option("--unpacked", help="Add the file with its weights unpacked.")] = False,
    runtime: Annotated[
        str, typer.Option(metavar="NAME", help="Make what this runtime loads, as `shrink runtimes` lists it.")
    ] = DEFAULT,
) -> int:
    """Make a folder to deploy: the model, a predict.py for its runtime and numpy alone, what to feed it, digests."""
    from pipeline.report.package import package as make

    if runtime == DEFAULT:
        print(make(run, output or run / "package", unpacked))  # noqa: T201
        return 0
    from pipeline.cli.catalogue import target_of
    from pipeline.records.folder import load_run

    if unpacked:
        problem, fix = "--unpacked is of the ONNX file", f"Leave it or --runtime {runtime} out"
        raise ConfigError(problem, fix=fix)
    print(make(run, output or run / f"package-{runtime}", target=target_of(runtime, load_run(run))))  # noqa: T201
    return 0
