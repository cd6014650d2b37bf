"""The edit that makes plain weights of those that are computed from others, as of weight or spectral normalization.

Where a channel leaves, the norm of the others would change with it; a plain weight stays what it was.
"""

from typing import Any

from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

USE = "stages.prune.computed:plain"

REMOVERS = {WeightNorm: remove_weight_norm, SpectralNorm: remove_spectral_norm}  # of the forms before parametrizations


def computed(module: nn.Module) -> list[str]:
    """Names of the layers whose weights are computed at each call."""
    return [name for name, part in module.named_modules() if parametrize.is_parametrized(part) or _hooked(part)]


def plain(module: nn.Module) -> nn.Module:
    """The module, changed in place, with the weights that it computes now as parameters, in evaluation mode."""
    for part in list(module.modules()):
        if parametrize.is_parametrized(part):
            _unparametrize(part)
        for hook in _hooked(part):
            REMOVERS[type(hook)](part, hook.name)
        for key, wrapped in list(part._load_state_dict_pre_hooks.items()):
            if isinstance(
                getattr(wrapped, "hook", None), SpectralNormLoadStateDictPreHook
            ):  # which torch leaves behind
                del part._load_state_dict_pre_hooks[key]
    return module


def _unparametrize(part: nn.Module) -> None:
    """As torch's remove_parametrizations, which also takes the weights from the class, and so from all copies."""
    names = [name for name, _ in part.get_submodule("parametrizations").named_children()]
    weights = {name: getattr(part, name).detach().clone() for name in names}
    part.__class__ = type(part).__bases__[0]
    del part.parametrizations
    for name, weight in weights.items():
        part.register_parameter(name, nn.Parameter(weight))


def _hooked(part: nn.Module) -> list[WeightNorm | SpectralNorm]:
    hooks: list[Any] = [*part._forward_pre_hooks.values()]
    return [hook for hook in hooks if isinstance(hook, WeightNorm | SpectralNorm)]
