"""`shrink init`: a starting config on standard output, without a question."""

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.errors import ConfigError

Model = Annotated[str, typer.Option(help="models.py:net, net.onnx, or a mapping in YAML.", show_default=False)]
Task = Annotated[str, typer.Option(help="data.py:task, digits, or a mapping in YAML.", show_default=False)]
Target = Annotated[Literal["cpu", "gpu", "edge"], typer.Option(help="Where the model is to run.")]
Weights = Annotated[Path | None, typer.Option(help="Of the model, where it comes trained.", show_default=False)]
Unsafe = Annotated[
    bool,
    typer.Option("--allow-unsafe-load", help="Unpickle weights whose sha256 `--model` has; that runs code of theirs."),
]
Out = Annotated[Path | None, typer.Option(help="Write this new file instead.", show_default=False)]


def init(
    model: Model,
    task: Task,
    target: Target = "cpu",
    weights: Weights = None,
    allow_unsafe_load: Unsafe = False,
    out: Out = None,
) -> int:
    """Write a commented starting config for a model and a task, which `shrink plan` accepts, to standard output.

    Paths go from this folder, where the file is expected to lie; with --out they are changed to go from its own.
    """
    from pipeline.cli.init.write import starting_config

    folder = out.parent if out else Path()
    there = ConfigError("there is such a file already", where=f"--out {out}", fix="Remove it, or give another name")
    if out and out.exists():
        raise there
    with redirect_stdout(sys.stderr):  # a user's file may print; stdout is the config
        source, reference = named(model, folder, weights), named(task, folder)
        name = out.name if out else "my.yaml"
        text = starting_config(source, reference, target, folder.resolve(), name, allow_unsafe_load=allow_unsafe_load)
    if out is None:
        print(text, end="")  # noqa: T201
        return 0
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise there from None
    except OSError as error:
        raise ConfigError(f"it cannot be written: {error.strerror}", where=f"--out {out}") from None
    return 0


def named(text: str, folder: Path, weights: Path | None = None) -> dict[str, Any]:
    """What stands in a config for what was given on the command line.

    Args:
        text: a file with an attribute, an ONNX file, the name of a built-in, or a mapping in YAML.
        folder: where the config will lie.
        weights: of a model.

    Raises:
        ConfigError: it is a mapping that cannot be read.
    """
    import yaml

    from pipeline.build.syntax.parse import parse

    rest = {"weights": _from(folder, weights)} if weights else {}
    if text.lstrip().startswith("{"):
        try:
            settings: dict[str, Any] = parse(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"`{text}` is not YAML: {getattr(error, 'problem', error)}", fix="Quote it") from None
        return settings | rest
    path, colon, attribute = text.partition(":")
    if text.endswith(".onnx"):
        return {"onnx": _from(folder, Path(text))} | rest
    if path.endswith(".py"):
        return {"use": _from(folder, Path(path)) + colon + attribute} | rest
    return {"use": text} | rest


def _from(folder: Path, path: Path) -> str:
    """The path, which goes from here, as it goes from a folder."""
    return str(path) if path.is_absolute() else Path(os.path.relpath(path, folder)).as_posix()
