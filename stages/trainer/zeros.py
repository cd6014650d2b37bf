"""Weights whose zeros stay in every training: an edit marks them, and the loop holds them."""

from collections.abc import Iterable, Sequence
from functools import partial

from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.model import Edit

USE = "stages.trainer.zeros:hold"
MARK = "held_zeros"
"""The attribute of a layer that names those of its parameters whose zeros stay."""


def hold(module: nn.Module, weights: Sequence[str]) -> nn.Module:
    """The module with parameters marked, by name: what is zero of them when a training begins is zero when it ends.

    Raises:
        StageError: there is no such parameter.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name in weights:
        if name not in parameters:
            raise StageError(f"the module has no parameter `{name}`", expected="the module that was pruned")
        owner, _, key = name.rpartition(".")
        layer = module.get_submodule(owner)
        setattr(layer, MARK, tuple(dict.fromkeys((*_marked(layer), key))))
    return module


def held(module: nn.Module) -> dict[str, nn.Parameter]:
    """The marked parameters, by name."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    names = [f"{name}.{key}".lstrip(".") for name, part in module.named_modules() for key in _marked(part)]
    return {name: parameters[name] for name in names if name in parameters}


def hold_gradients(module: nn.Module) -> None:
    """Have the zeros of marked parameters get no gradient: no optimizer moves what is zero without one.

    Its momenta stay zero, and what decays a weight of zero leaves zero. To be called of the module that is trained: a
    copy of it has no hooks.
    """
    for weight in {id(weight): weight for weight in held(module).values()}.values():
        if weight.requires_grad:
            weight.register_hook(partial(_masked, weight))  # type: ignore[no-untyped-call]


def structural(edits: Iterable[Edit]) -> list[Edit]:
    """The edits without such marks, which are of weights and say nothing of a model that is built anew."""
    return [edit for edit in edits if edit.use != USE]


def _marked(layer: nn.Module) -> tuple[str, ...]:
    names: tuple[str, ...] = vars(layer).get(MARK, ())
    return names


def _masked(weight: nn.Parameter, gradient: Tensor) -> Tensor:
    """A gradient without what the zeros get, infinities too; the weight may have moved since."""
    return gradient.masked_fill(weight == 0, 0)
