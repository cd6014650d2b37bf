"""A module that was given from Python -> what a config says of one: what builds it anew, and its weights in a file."""

import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pipeline.base.code.places import is_users
from pipeline.base.files import file_digest, write_whole
from pipeline.base.use import Reference
from pipeline.build.live.digest import Digest
from pipeline.build.live.lent import MODULE, Loan
from pipeline.errors import ConfigError, ShrinkError, blame
from pipeline.forms.layers import copied, refuse_scripted
from pipeline.model import TorchModel, same

Builder = str | Mapping[str, Any] | Callable[..., nn.Module]


def own_copy(module: nn.Module) -> nn.Module:
    """A copy on the CPU, out of its wrappers and without gradients. Raises ConfigError where it cannot be copied."""
    for name, part in module.named_modules():
        refuse_scripted(part, "model", name)  # a copy of it cannot be exported
    if lazy := [name for name, value in module.named_parameters() if is_lazy(value)]:
        raise ConfigError(f"`{lazy[0]}` has no shape yet", where="model", fix="Call the model on a batch once")
    with blame(ConfigError, "model", fix="Give one that copy.deepcopy copies: detach tensors, hold no open files"):
        twin = copied(module).cpu().eval()
    for parameter in twin.parameters():
        parameter.grad = None
    return twin


def lent_as(module: nn.Module, objects: dict[str, Loan]) -> dict[str, Any]:
    """The reference to a module with all its weights, which is put among the objects that are lent."""
    digest, name = Digest().add(module), type(module).__qualname__
    objects[digest.hexdigest()] = Loan(f"the model, a {name},", module, frozenset(digest.opaque))
    return {"use": MODULE, "digest": digest.hexdigest(), "of": name}


def source(
    module: nn.Module, builder: Builder | None, folder: Path, weights: Path, objects: dict[str, Loan]
) -> dict[str, Any]:
    """`model:` of a config for a trained module.

    Args:
        module: a copy of what was given.
        builder: what builds it, as in a config, or a function, a class, a partial of one; else its class is tried.
        folder: where files of a builder are looked for.
        weights: the folder that its weights are written into, under the digest of the file.
        objects: gets the module where nothing builds it anew.

    Raises:
        ConfigError: the builder is no such thing; or the weights cannot be written.
    """
    lent = lent_as(module, objects)
    with blame(ConfigError, "model"):
        saved = _saved(_state(module), weights.resolve())
    if builder is None:
        chosen = next((r for r in _references(type(module), {}, folder) if _builds(r, lent["digest"], module)), None)
    else:
        chosen = _named(builder, folder)
    if chosen is None:
        return {**lent, **saved}
    if builder is None:
        del objects[lent["digest"]]
    return {"use": chosen.use, **chosen.arguments, **saved}


def check_same(model: TorchModel, original: nn.Module) -> None:
    """Raise ConfigError where a model that was built with the weights of a module gives other outputs than that."""
    outputs = model.predict(model.example)
    for name, values in TorchModel(original, model.example, model.builder).predict(model.example).items():
        if name not in outputs or not same(values, outputs[name], 1e-6):
            problem = f"with the weights of the model it gives other values for `{name}`"
            raise ConfigError(problem, where=f"builder ({model.builder.use})", fix="Name what built this very model")


def _saved(state: dict[str, Tensor], folder: Path) -> dict[str, str]:
    """What `model:` says of weights in a folder, which are written unless they are there as they should be."""
    content = save(state)
    digest = hashlib.sha256(content).hexdigest()
    file = folder / f"{digest}.safetensors"
    if file.is_file() and file_digest(file) == digest:
        os.utime(file)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)
    return {"weights": str(file), "sha256": digest}


def _state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict, tied values in each of their places."""
    state = module.state_dict()
    if other := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ConfigError(f"`{other[0]}` of its state is no tensor", fix="Keep all state in parameters and buffers")
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def _named(builder: Builder, folder: Path) -> Reference:
    """The reference to a builder that was given."""
    if isinstance(builder, str | Mapping):
        with blame(ConfigError, "builder"):
            return Reference.model_validate(builder, context={"folder": folder})
    inner = builder.func if isinstance(builder, partial) else builder
    keywords = builder.keywords if isinstance(builder, partial) else {}
    if not callable(inner) or (isinstance(builder, partial) and builder.args):
        expected = "such as models.py:net, {use: models.py:net, width: 16}, or partial(net, width=16)"
        raise ConfigError(f"it is a {type(builder).__name__}", where="builder", expected=expected)
    with blame(ConfigError, "builder"):
        for reference in _references(inner, keywords, folder):
            return reference
    problem = f"`{getattr(inner, '__qualname__', inner)}` is of {inner.__module__}, which cannot be imported elsewhere"
    raise ConfigError(problem, where="builder", fix="Define it at the top of a file of its own, or leave `builder` out")


def _references(target: Any, arguments: Mapping[str, Any], folder: Path) -> list[Reference]:
    """How a class or function can be named, by its file or its module; in no way what is in a script or a notebook."""
    home = sys.modules.get(target.__module__)
    name, file = getattr(target, "__qualname__", "."), getattr(home, "__file__", None)
    if home is None or target.__module__ == "__main__" or getattr(home, name, None) is not target:
        return []
    if not file or not is_users(str(Path(file).absolute())):
        uses = [f"{target.__module__}:{name}"]
    else:
        path = Path(file).resolve()
        within = path.is_relative_to(folder.resolve())
        uses = [f"{path.relative_to(folder.resolve()).as_posix() if within else path}:{name}"]
    return [Reference(use=use, arguments=dict(arguments), folder=folder) for use in uses]


def _builds(reference: Reference, digest: str, module: nn.Module) -> bool:
    """Whether the class alone, called with no arguments, surely builds what the module is, but for its weights."""
    required = [p for p in inspect.signature(type(module)).parameters.values() if p.default is p.empty]
    if any(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in required):
        return False
    try:
        twin = reference.call()
        twin.load_state_dict(module.state_dict())
    except (ShrinkError, RuntimeError):  # of other sizes, or not to be imported alone
        return False
    built = Digest().add(twin.eval())
    return built.hexdigest() == digest and not built.opaque
