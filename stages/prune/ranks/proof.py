"""Whether factors can stand for layers, by values: factors with identities give what the layers gave."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from pipeline.base.batches import Inputs
from pipeline.errors import StageError, blame
from pipeline.forms.tracing import slow_path
from pipeline.model import call, same
from stages.prune.coupling.proof import Values, misfits, shaken, watched
from stages.prune.ranks.decomposition import exact
from stages.prune.ranks.factors import factors, fill, replace


def unfit(module: nn.Module, example: Inputs, counts: Mapping[str, int]) -> list[str]:
    """The layers that must stay so that factors can stand for all others.

    Compared are the outputs as they are predicted, and with those of each layer as they are exported and, where that
    gives the same twice, trained. What reads a layer's weight past its forward fails there, or gives something else.

    Args:
        module: in evaluation mode; it is not changed.
        example: a batch of its inputs.
        counts: of the ranks by layer, see `Layer`.

    Raises:
        StageError: the module does not run on the example.
    """
    shaken_module = shaken(module)
    with blame(StageError, "the model on its example"):
        before = _evaluated(copy.deepcopy(shaken_module), example, counts)
    trained, again = (_trained(copy.deepcopy(shaken_module), example, counts) for _ in range(2))
    trained = trained if _same(trained, again) else {}

    def fits(names: Iterable[str]) -> bool:
        trial = copy.deepcopy(shaken_module)
        for name in names:
            _put_exact(trial, name, counts[name])
        try:
            with blame(StageError, "the model with factors"):
                is_same = _same(before, _evaluated(trial, example, counts))
        except StageError:
            return False
        return is_same and (not trained or _same(trained, _trained(trial, example, counts)))

    return misfits(counts, fits)


def _same(before: Values, after: Values) -> bool:
    return before.keys() == after.keys() and all(
        len(before[name]) == len(after[name]) and all(map(same, before[name], after[name])) for name in before
    )


def _put_exact(module: nn.Module, name: str, count: int) -> None:
    part: Any = module.get_submodule(name)
    weights = exact(part.weight.detach(), count)
    sequence = factors(part, [len(one) for one in weights[:-1]])
    fill(sequence, weights)
    replace(module, name, sequence)


def _evaluated(module: nn.Module, example: Inputs, names: Iterable[str]) -> Values:
    """The outputs as predicted, which may be fused, and with those of the layers as exported."""
    with torch.no_grad():
        outputs = call(module.eval(), example)
    return {"predicted": [*outputs.values()], **_unfused(module, example, names)}


def _trained(module: nn.Module, example: Inputs, names: Iterable[str]) -> Values:
    """The outputs with those of the layers in training mode; empty where it does not run on these inputs alone."""
    try:
        with blame(StageError, ""):
            return _unfused(module.train(), example, names)
    except StageError:
        return {}


def _unfused(module: nn.Module, example: Inputs, names: Iterable[str]) -> Values:
    with torch.random.fork_rng(devices=[]), torch.no_grad(), slow_path(), watched(module, names) as values:
        torch.default_generator.manual_seed(0)  # not torch.manual_seed: it would reset the GPU's
        outputs = call(module, example)
    return {**values, "": [*outputs.values()]}
