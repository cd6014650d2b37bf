"""A state dict as a file holds it -> one with the names that a module has; what does not fit is named."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pipeline.base.formatting import few
from pipeline.base.use import nearest
from pipeline.errors import ConfigError, Note

WRAPPINGS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params"),
    *("ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema"),
)
"""Keys under which checkpoints keep a state dict, the one that is taken first; an average of weights comes last."""
PREFIXES = ("module.", "model.")
"""Of names, as DataParallel and Lightning put them."""
COMPILED = "_orig_mod."
"""What torch.compile puts into names, anywhere."""
COUNTS = "n_averaged"
"""What an averaged model has beside its weights."""
DEEPEST = 10
SHOWN = 3
EXPECTED = "a state dict, as module.state_dict() gives"
BUILDER = "The builder must make the module that the weights come from"


def unwrapped(state: Any, module: nn.Module | None = None, notes: list[str] | None = None) -> dict[str, Any]:
    """The state dict inside the common wrappings, with the names that the module has.

    Args:
        state: what a file holds: a state dict, or one under a key such as "state_dict", also under several.
        module: that it is for; without one the prefixes are taken off.
        notes: gets a note where another one could have been meant, or something is left out.
    """
    for _ in range(DEEPEST):  # a file may hold itself
        state = state if _is_flat(state) else _inner(state, notes)
    if not _is_flat(state):
        raise ConfigError(f"it holds no state dict within {DEEPEST} wrappings", expected=EXPECTED)
    module_keys = set(module.state_dict()) if module else set[str]()
    names = {
        name: name.replace(COMPILED, "") if not any(COMPILED in key for key in module_keys) else name for name in state
    }
    if COUNTS in names and COUNTS not in module_keys:
        del names[COUNTS]
    while prefix := _prefix(list(names.values()), module_keys):
        names = {name: short.removeprefix(prefix) for name, short in names.items()}
    names = _within(names, module_keys, notes)
    if all(name == short for name, short in names.items()) and len(names) == len(state):
        return state  # type: ignore[no-any-return]  # with the versions that torch keeps beside it
    return {short: state[name] for name, short in names.items()}


def _prefix(names: list[str], module_keys: set[str]) -> str:
    """One that all names have and that the module's do not; empty where there is none."""
    for prefix in PREFIXES:
        if names and all(name.startswith(prefix) for name in names):
            shorter = sum(name.removeprefix(prefix) in module_keys for name in names)
            if shorter > sum(name in module_keys for name in names) or not any(
                key.startswith(prefix) for key in module_keys
            ):
                return prefix
    return ""


def _within(names: dict[str, str], module_keys: set[str], notes: list[str] | None) -> dict[str, str]:
    """Those with a prefix, without it, where so more are the module's: what wraps a module has keys of its own."""
    for prefix in PREFIXES:
        inner = {name: short.removeprefix(prefix) for name, short in names.items() if short.startswith(prefix)}
        if len(module_keys & {*inner.values()}) > len(module_keys & {*names.values()}):
            if notes is not None:
                rest = few([name for name in names if name not in inner])
                notes.append(Note(f"{rest} left out: of what wraps the model, whose keys begin with `{prefix}`"))
            return inner
    return names


def _is_flat(state: Any) -> bool:
    if isinstance(state, nn.Module) or not isinstance(state, Mapping):
        return False
    return bool(state) and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items())


def _inner(state: Any, notes: list[str] | None) -> Any:
    """What is one wrapping further in."""
    if isinstance(state, nn.Module):
        return state.state_dict()
    if not isinstance(state, Mapping):
        raise ConfigError(f"it holds a {type(state).__name__}", expected=EXPECTED)
    wrapper_keys = [key for key in WRAPPINGS if isinstance(state.get(key), Mapping | nn.Module) and state[key] != {}]
    if not wrapper_keys:
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor) and isinstance(key, str)}
        keys = ", ".join(f"`{key}`" for key in list(state)[:12]) or "nothing"
        if tensors and not any(isinstance(value, Mapping) for value in state.values()):
            return tensors  # a state dict with a module's extra state beside it
        raise ConfigError(f"it holds {keys}", expected=f"{EXPECTED}, or one under {', '.join(WRAPPINGS[:5])}")
    if len(wrapper_keys) > 1 and notes is not None:
        notes.append(Note(f"taken from `{wrapper_keys[0]}`; there is `{'`, `'.join(wrapper_keys[1:])}` too"))
    return state[wrapper_keys[0]]


def fill(module: nn.Module, state: dict[str, Any], notes: list[str]) -> None:
    """Load a state dict, or raise ConfigError with what does not fit."""
    own = module.state_dict()
    other = [line for name in own if name in state and (line := _difference(name, state[name], own[name]))]
    missing, unexpected = [name for name in own if name not in state], [name for name in state if name not in own]
    if not other:
        mismatch = module.load_state_dict(state, strict=False)  # knows what torch's own modules were called before
        missing, unexpected = list(mismatch.missing_keys), list(mismatch.unexpected_keys)
    missing = [name for name in missing if not _is_tied(name, own, state)]
    if missing or unexpected or other:
        prefix = _one_sided(list(state), list(own))
        fix = f"{BUILDER}, or save them with its keys" if prefix else BUILDER
        near = _pairs(missing, unexpected) if not prefix else {}
        names = {"missing": [name + near.get(name, "") for name in missing], "unexpected": unexpected}
        names["different"] = other
        parts = [prefix, *(f"{what}: {few(those)}" for what, those in names.items() if those)]
        raise ConfigError("the keys do not fit; " + "; ".join(filter(None, parts)), fix=fix)
    casts = {str(state[name].dtype): str(own[name].dtype) for name in own if name in state}
    if lost := [name for name, value in module.named_parameters() if not is_lazy(value) and value.isnan().any()]:
        raise ConfigError(f"{few(lost)} holds values that are no numbers", fix="Take weights from before that happened")
    for source, target in casts.items():
        if source != target:
            notes.append(Note(f"{source.removeprefix('torch.')} was loaded as {target.removeprefix('torch.')}"))


def _difference(name: str, theirs: Any, ours: Any) -> str:
    """Why a value of the file cannot be the module's; empty where it can."""
    if not isinstance(theirs, Tensor) or not isinstance(ours, Tensor) or is_lazy(ours):
        return ""
    if theirs.shape != ours.shape:
        return f"{name} is {tuple(theirs.shape)} in the file, {tuple(ours.shape)} in the module"
    if theirs.is_floating_point() != ours.is_floating_point() or theirs.is_complex() != ours.is_complex():
        return f"{name} is {theirs.dtype} in the file, {ours.dtype} in the module"
    return ""


def _one_sided(theirs: list[str], ours: list[str]) -> str:
    """Says which prefix all keys of one side have that the other side's lack; empty where it would not make any fit."""
    sides = (("the file", theirs, "the module's", ours), ("the module", ours, "the file's", theirs))
    for whose, names, whose_others, others in sides:
        first = names[0].split(".") if names else []
        for end in range(1, len(first)):
            prefix = ".".join(first[:end]) + "."
            fits = {name.removeprefix(prefix) for name in names} & set(others)
            shared = all(name.startswith(prefix) for name in names)
            if fits and shared and not any(name.startswith(prefix) for name in others):
                return f"all keys of {whose} begin with `{prefix}`, which {whose_others} do not"
    return ""


def _is_tied(name: str, own: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Whether a key that is missing is the same tensor as one that is there; safetensors keeps such a pair once."""
    value = own.get(name)
    if not isinstance(value, Tensor) or not value.numel():
        return False
    same = (value.data_ptr(), value.shape, value.stride())
    others = {key: tensor for key, tensor in own.items() if key in state and isinstance(tensor, Tensor)}
    return any((tensor.data_ptr(), tensor.shape, tensor.stride()) == same for tensor in others.values())


def _pairs(missing: list[str], unexpected: list[str]) -> dict[str, str]:
    """For the first missing names the nearest of the unexpected ones, as a remark."""
    near = {name: nearest(name, unexpected) for name in missing[:SHOWN]}
    return {name: f" ({hint.removeprefix('; ')})" for name, hint in near.items() if "did you mean" in hint}
