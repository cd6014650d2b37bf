"""Pipeline files that come with the package, by bare names such as `digits`."""

from pathlib import Path

CONFIGS = Path(__file__).parents[3] / "configs"
"""It lies beside our packages, in the repository and where a wheel is installed."""

TASKS = ("digits",)
"""Its folders that a wheel has."""

CHAIN, STRATEGIES = "compress", "strategies"
"""The files that the name of a task stands for, where a chain is run and where several are compared."""


def carried(main: str = CHAIN) -> dict[str, Path]:
    """Each file by its name, `digits/dkd`, and the file `main` of a task by the task's alone too, `digits`."""
    files = [file for task in TASKS for file in sorted((CONFIGS / task).glob("*.yaml"))]
    whole = {f"{file.parent.name}/{file.stem}": file for file in files}
    return {**{file.parent.name: file for file in files if file.stem == main}, **whole}


def located(asked: Path, main: str = CHAIN) -> Path:
    """The path of a pipeline file: as it is asked for, or of what comes with the package where nothing is there."""
    return asked if asked.exists() else carried(main).get(asked.as_posix(), asked)
