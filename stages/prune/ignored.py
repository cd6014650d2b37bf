"""`ignore:` of the pruning stages: names of layers, or of parts with layers, that stay as they are."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from pipeline.base.use import nearest
from pipeline.errors import ShrinkError


def ignored(module: nn.Module, patterns: Sequence[str], error: type[ShrinkError]) -> tuple[str, ...]:
    """The names of submodules that the patterns fit, with * for any letters. Raises `error` for one that fits none."""
    names, fitting = [name for name, _ in module.named_modules() if name], list[str]()
    for pattern in patterns:
        some = [name for name in names if fnmatchcase(name, pattern)]
        if not some:
            raise error(f"`ignore` names `{pattern}`, which the model does not have{nearest(pattern, names)}")
        fitting += some
    return tuple(fitting)


def is_in(name: str, parts: Sequence[str]) -> bool:
    """Whether a layer is one of the parts, or in one."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)
