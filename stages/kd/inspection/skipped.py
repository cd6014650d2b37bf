"""A model with some of its layers skipped, as the one without them has to be."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from pipeline.base.batches import Outputs
from pipeline.forms.layers import layer_lists
from pipeline.model import TorchModel


def predicted_without(model: TorchModel, kept: Mapping[str, Sequence[int]]) -> Outputs:
    """What a model gives for its example where layers hand on what they are given.

    Args:
        model: it is not changed.
        kept: list of layers -> positions of those that do not.
    """
    skipping = replace(model, module=copy.deepcopy(model.module))
    for key, positions in kept.items():
        for i, name in enumerate(layer_lists(model.module)[key]):
            layer = skipping.module.get_submodule(name)
            if i not in positions:
                layer.forward = partial(_handed_on, layer.forward)
    return skipping.predict(model.example)


def _handed_on(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a layer gives, but the first of its tensors is that of the same shape that came in."""
    inputs = [value.clone() for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    output = forward(*args, **kwargs)  # may write into what it is given
    first = output if isinstance(output, Tensor) else output[0]
    same = next(value for value in inputs if value.shape == first.shape)
    return same if isinstance(output, Tensor) else (same, *output[1:])
