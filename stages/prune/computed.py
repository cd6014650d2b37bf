"""The edit that makes plain weights of those that are computed from others, as of weight or spectral normalization.

Where a channel leaves, the norm of the others would change with it; a plain weight stays what it was.
"""

from typing import Any

from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

USE = "stages.prune.computed:plain"


def computed(module: nn.Module) -> list[str]:
    """Names of the layers whose weights are computed at each call."""
    return [name for name, part in module.named_modules() if parametrize.is_parametrized(part) or _hooked(part)]


def plain(module: nn.Module) -> nn.Module:
    """The module, changed in place, with the weights that it computes now as plain ones, in evaluation mode.

    Parameters stay parameters, frozen ones frozen, and buffers stay buffers.
    """
    for part in list(module.modules()):
        if parametrize.is_parametrized(part):
            _unparametrize(part)
        for hook in _hooked(part):
            _unhook(part, hook)
        for key, wrapped in list(part._load_state_dict_pre_hooks.items()):
            # torch leaves this one behind: see findings/spectral_norm_leaves_its_hook.sh
            if isinstance(getattr(wrapped, "hook", None), SpectralNormLoadStateDictPreHook):
                del part._load_state_dict_pre_hooks[key]
    return module


def _unparametrize(part: nn.Module) -> None:
    """As torch's remove_parametrizations, which also takes the weights from the class, and so from all copies."""
    originals = {
        name: [*inner.parameters(recurse=False)]
        for name, inner in part.get_submodule("parametrizations").named_children()
    }
    weights = {name: getattr(part, name).detach().clone() for name in originals}
    part.__class__ = type(part).__bases__[0]
    del part.parametrizations
    for name, parameters in originals.items():
        if parameters:
            is_trainable = any(parameter.requires_grad for parameter in parameters)
            part.register_parameter(name, nn.Parameter(weights[name], is_trainable))
        else:
            part.register_buffer(name, weights[name])


def _unhook(part: nn.Module, hook: WeightNorm | SpectralNorm) -> None:
    """The same for the forms before parametrizations."""
    names = [f"{hook.name}_{end}" for end in ("g", "v", "orig")]
    is_trainable = any(parameter.requires_grad for name, parameter in part.named_parameters() if name in names)
    remove = remove_weight_norm if isinstance(hook, WeightNorm) else remove_spectral_norm
    remove(part, hook.name)
    part.get_parameter(hook.name).requires_grad_(is_trainable)


def _hooked(part: nn.Module) -> list[WeightNorm | SpectralNorm]:
    hooks: list[Any] = [*part._forward_pre_hooks.values()]
    return [hook for hook in hooks if isinstance(hook, WeightNorm | SpectralNorm)]
