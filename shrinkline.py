"""Shrinkline from Python: shrink a model that is there, run and compare pipeline files, read what a run left.

>>> import shrinkline                                                            # doctest: +SKIP
>>> result = shrinkline.compress(net, train=train, validation=validation, test=test,
...                              stages=["prune.channels", "export.onnx", "quantize.static"])
>>> result.file, result.record.final.retention

It is what the command `shrink` does, with the same chain, store, record and MLflow. Importing this alone imports
neither torch nor anything else that takes its time.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from pipeline.build.live.load import Asked
    from pipeline.report.result import Compared, Result

__all__ = ["compare", "compress", "load", "plan", "run"]


def compress(
    model: "nn.Module | str | Mapping[str, Any]",
    *,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    stages: Sequence[Any],
    budget: Mapping[str, Any] | None = None,
    **options: Any,
) -> "Result":
    """Run a chain on a trained model and judge it.

    Args:
        model: a module, which stays as it is; or what `model:` of a pipeline file says.
        train, validation, test: each a DataLoader, a map-style dataset of (inputs, target) or of dictionaries with
            `labels`, or a pair of tensors (inputs, targets); several inputs are a dictionary of tensors. A tenth of
            train is held out where there is no validation. Every example counts, whatever a loader's `drop_last` says.
        stages: names such as "export.onnx", dictionaries as in YAML, or stage objects; a student may be a module.
        budget: as in YAML, {"retention": {"min": 0.97}, "size": {"max": "40 kB"}}.
        options: `loss` of (predictions, targets) and `score` (predictions, targets) -> (N,), higher is better, where
            the targets do not tell them: class numbers mean cross-entropy and right or wrong, 0 and 1 for each label
            binary cross-entropy, real numbers the squared error; `metrics`, `augment`, `labels` and all else that
            `pipeline.task.Task` has, or `task` in place of the data; `builder`, what builds the model anew elsewhere,
            such as "models.py:net"; `name`, `seed`, `device`, `baseline` and all other keys of a pipeline file; `runs`,
            `folder` and all else of `pipeline.runner.run`.

    Raises:
        ShrinkError: one message that says where, what was expected and what to do; before any work, but where a stage
            fails.
    """
    from pipeline import runner
    from pipeline.build.live.call import arranged

    data = {"train": train, "validation": validation, "test": test}
    config, settings = arranged(model, data, {"stages": stages, "budget": budget, **options}, runner.run)
    return run(config, **settings)


def run(config: "Asked", **options: Any) -> "Result":
    """Run a pipeline file, or the keys of one as a mapping; see `pipeline.runner.run` for the options."""
    with _said():
        from pipeline import runner
        from pipeline.report.result import result_of

        return result_of(runner.run(config, **options))


def plan(config: "Asked", **options: Any) -> dict[str, Any]:
    """What would run with which settings, what is stored already, and what looks suspicious; nothing is trained."""
    with _said():
        from pipeline import runner
        from pipeline.run.plan import as_json

        with runner.planned(config, **options) as (built, store):
            return as_json(built, store)


def compare(*runs: "str | Path | Result | Mapping[str, Any]", **options: Any) -> "Compared":
    """Compare all strategies of pipeline files, or of one mapping of their keys, which are run; or runs that are there.

    Runs are given as results or by their folders. For the options see `pipeline.compare.compare.compare`,
    `pipeline.compare.mapping.compare_mapping` and `pipeline.compare.compare.compare_runs`.
    """
    with _said():
        from pathlib import Path

        from pipeline.compare.compare import compare as compare_files
        from pipeline.compare.compare import compare_runs
        from pipeline.errors import ConfigError
        from pipeline.report.result import Compared, Result

        if len(runs) == 1 and isinstance(runs[0], Mapping):
            from pipeline.compare.mapping import compare_mapping

            return Compared(compare_mapping(runs[0], **options))
        expected = "pipeline files; one mapping of their keys; or runs, as results or by their folders"
        if not runs:
            raise ConfigError("there is nothing to compare", where="compare", expected=expected)
        places = list[Path]()
        for entry in runs:
            if not isinstance(entry, str | Path | Result):
                fix = "Give one mapping alone, with `strategies`" if isinstance(entry, Mapping) else ""
                raise ConfigError(f"it is a {type(entry).__name__}", where="compare", expected=expected, fix=fix)
            places.append(entry.folder if isinstance(entry, Result) else Path(entry))
        of_runs = all(place.is_dir() for place in places)
        return Compared((compare_runs if of_runs else compare_files)(places, **options))


def load(run: "str | Path") -> "Result":
    """What a run came to, from its folder alone, wherever that is now."""
    from pathlib import Path

    from pipeline.records.folder import load_run
    from pipeline.report.result import result_of

    return result_of(load_run(Path(run), ended=False))


@contextmanager
def _said() -> Iterator[None]:
    """With messages shown, unless whoever calls has said where they go; and no library reports to its maker."""
    from pipeline.base.progress import audible
    from pipeline.base.quiet import unreported

    unreported()
    with audible():
        yield
