"""Pipeline files that come with the package, by bare names such as `digits`."""

from pathlib import Path

CONFIGS = Path(__file__).parents[3] / "configs"
"""It lies beside our packages, in the repository and where a wheel is installed."""

TASKS = ("digits",)
"""Its folders that a wheel has."""

CHAIN, STRATEGIES = "compress", "strategies"
"""The files that the name of a task stands for, where a chain is run and where several are compared."""


def carried(main: str = CHAIN) -> dict[str, Path]:
    """Each file by its name: `digits` for the file `main` of that task, `digits/dkd` for another beside it."""
    files = [file for task in TASKS for file in sorted((CONFIGS / task).glob("*.yaml"))]
    return {_name(file, main): file for file in files}


def located(asked: Path, main: str = CHAIN) -> Path:
    """The path of a pipeline file: as it is asked for, or of what comes with the package where nothing is there."""
    return asked if asked.exists() else carried(main).get(asked.as_posix(), asked)


def _name(file: Path, main: str) -> str:
    return file.parent.name if file.stem == main else f"{file.parent.name}/{file.stem}"
