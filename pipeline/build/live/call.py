"""The arguments of one call from Python -> a pipeline as a mapping, and how it is run."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args

from torch import nn

from pipeline.base.use import nearest
from pipeline.build.config import PipelineConfig
from pipeline.build.live.module import own_copy
from pipeline.build.live.task import OPTIONS, SPLITS, task_of
from pipeline.errors import ConfigError


def arranged(
    model: Any, data: Mapping[str, Any], options: Mapping[str, Any], run: Callable[..., Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mapping, with the model and the task as objects, and the options of the run.

    Args:
        model: a module, or what `model:` says.
        data: `train`, `validation` and `test`; all None where `task` is among the options.
        options: of the task, of the config and of the run, by their names there.
        run: what the config is given to.

    Raises:
        ConfigError: the model is no model, there is no such option, or the data make no task; see `task_of`.
    """
    keys = [name for name, field in PipelineConfig.model_fields.items() if not field.exclude]
    of_run = keywords(run)
    for name in options:
        if name not in (*keys, *OPTIONS, *of_run):
            raise ConfigError(f"there is no argument `{name}`{nearest(name, [*keys, *OPTIONS, *of_run])}")
    if not isinstance(model, nn.Module | str | Mapping):
        fix = "Write Net()" if isinstance(model, type) and issubclass(model, nn.Module) else ""
        problem = f"it is {'the class ' + model.__name__ if fix else 'a ' + type(model).__name__}"
        raise ConfigError(problem, where="model", expected="a torch nn.Module, or models.py:net", fix=fix)
    config = {"model": model, **{name: value for name, value in options.items() if name in keys}}
    of_task = {name: value for name, value in options.items() if name in OPTIONS and value is not None}
    if options.get("task") is None:
        module = own_copy(model) if isinstance(model, nn.Module) else None
        config["task"] = task_of(module, data, **of_task)
    elif extra := [*(name for name in SPLITS if data.get(name) is not None), *of_task]:
        fix = "Leave it out, or give the data in place of the task"
        raise ConfigError("there is a `task` beside it", where=extra[0], fix=fix)
    return config, {name: value for name, value in options.items() if name in of_run}


def keywords(function: Callable[..., Any]) -> list[str]:
    """The names of what a function takes by name, those of its unpacked TypedDict among them."""
    parameters = inspect.signature(function).parameters.values()
    unpacked = [get_args(p.annotation)[0].__annotations__ for p in parameters if p.kind is p.VAR_KEYWORD]
    return [*(p.name for p in parameters if p.kind is p.KEYWORD_ONLY), *(name for names in unpacked for name in names)]
