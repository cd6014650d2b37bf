"""The edit that puts plain linear layers in the place of those that keep attention in tensors of their own.

`nn.MultiheadAttention` becomes `Attention`, and the `Conv1D` of GPT-2, a linear layer with its weight transposed, an
`nn.Linear`.
"""

import copy
from collections.abc import Callable

from torch import nn

from pipeline.base.batches import Inputs
from pipeline.errors import Note, StageError, blame
from pipeline.model import TorchModel, same
from stages.prune.attention.attention import Attention
from stages.prune.coupling.proof import misfits, outputs, shaken
from stages.prune.coupling.telling import counted
from stages.trainer.zeros import held, hold

USE = "stages.prune.attention.plain:plain"


def with_plain_attention(model: TorchModel, say: Callable[[str], None]) -> TorchModel:
    """The model with plain linear layers, and a note of where there were none.

    What gives other values as plain layers, in a copy with other weights, or of which the forward reads more than those
    have, stays, and a note says so.
    """
    names = compound(model.module)
    if not names:
        return model
    whole = shaken(model.module)
    wrong = misfits(names, lambda some: _is_same(whole, some, model.example))
    if wrong:
        say(Note(f"these stay as they are, for with plain layers there the model gives other values: {counted(wrong)}"))
    names = [name for name in names if name not in wrong]
    if not names:
        return model
    say(Note(f"plain linear layers stand for those with weights of their own of {counted(names)}"))
    return model.edited(USE, layers=[*names])


def compound(module: nn.Module) -> list[str]:
    """Names of the layers that can become plain ones: those whose weights stand at no other place."""
    uses: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    kinds = [(name, part) for name, part in module.named_modules(remove_duplicate=False) if _is_compound(part)]
    is_own = {name: all(uses[id(weight)] == 1 for weight in part.parameters()) for name, part in kinds}
    return [name for name, _ in kinds if is_own[name]]


def plain(module: nn.Module, layers: list[str]) -> nn.Module:
    """The module, changed in place, with plain linear layers.

    Args:
        module: with these layers.
        layers: their names.

    Raises:
        StageError: a name is not that of such a layer.
    """
    parts = dict(module.named_modules())
    for name in layers:
        if name not in parts or not _is_compound(parts[name]):
            raise StageError(f"the module has no attention `{name}`", expected="the module that was made plain")
        owner, _, key = name.rpartition(".")
        part = parts[name]
        new = Attention.of(part) if isinstance(part, nn.MultiheadAttention) else _linear(part)
        setattr(module.get_submodule(owner), key, new)
    for part in module.modules():
        if isinstance(part, nn.TransformerEncoder) and any(isinstance(inner, Attention) for inner in part.modules()):
            part.use_nested_tensor = False  # it would read the weights of nn.MultiheadAttention
    return module


def _is_compound(part: nn.Module) -> bool:
    if isinstance(part, nn.MultiheadAttention):
        return type(part) is nn.MultiheadAttention and part.bias_k is None and not part.add_zero_attn
    axes = {name: parameter.ndim for name, parameter in part.named_parameters()}
    return type(part).__name__ == "Conv1D" and axes == {"weight": 2, "bias": 1}


def _linear(part: nn.Module) -> nn.Module:
    weight, bias = part.get_parameter("weight"), part.get_parameter("bias")
    new = nn.Linear(weight.shape[0], weight.shape[1], device="meta")
    new.weight = nn.Parameter(weight.detach().mT.contiguous(), weight.requires_grad)
    new.bias = bias
    return hold(new.train(part.training), [*held(part)])


def _is_same(module: nn.Module, names: list[str], example: Inputs) -> bool:
    """Whether a module of plain layers gives what it gives; not where it reads what these do not have."""
    before, changed = outputs(module, example), plain(copy.deepcopy(module), names)
    try:
        with blame(StageError, "the model with plain linear layers"):
            after = outputs(changed, example)
    except StageError:
        return False
    return all(same(value, after[name]) for name, value in before.items())
