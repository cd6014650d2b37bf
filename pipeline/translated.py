"""A module whose vocabulary was pruned, behind the translation of its inputs, which no tracer sees through."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.vocabulary import FILE, Vocabulary

USE = "pipeline.translated:without_tokens"


class Translated(nn.Module):
    """Takes ids of the whole tokenizer and gives the inner module those of the pruned one."""

    def __init__(self, inner: nn.Module, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.inner, self.vocabulary = inner, vocabulary

    def forward(self, *inputs: Tensor, **by_name: Tensor) -> Any:
        """What the inner module gives for the translated inputs; a single one comes and goes by position."""
        if inputs:
            name = self.vocabulary.texts[0].ids
            return self.inner(self.vocabulary.translate({name: inputs[0]})[name])
        return self.inner(**self.vocabulary.translate(by_name))


def without_tokens(module: nn.Module, embedding: str, vocabulary: dict[str, Any]) -> Translated:
    """The edit: the module with the embedding's rows of the kept tokens alone, behind the translation.

    Args:
        module: it is changed.
        embedding: the name of its nn.Embedding.
        vocabulary: the fields of a Vocabulary.
    """
    found = Vocabulary.model_validate(vocabulary)
    old = module.get_submodule(embedding)
    new = _rows(old, embedding, found)
    for name, part in list(module.named_modules(remove_duplicate=False)):
        if part is old:
            module.set_submodule(name, new)
    for config in {id(part.config): part.config for part in module.modules() if hasattr(part, "config")}.values():
        _renumber(config, found)
    return Translated(module, found)


def split(module: nn.Module) -> tuple[nn.Module, Vocabulary | None]:
    """The module that can be traced, and what translates its inputs, if anything does."""
    return (module.inner, module.vocabulary) if isinstance(module, Translated) else (module, None)


def saved_vocabulary(directory: Path) -> Vocabulary | None:
    """What translates the inputs of a saved model of either form."""
    found = json.loads((directory / "model.json").read_text())
    edits = [edit["arguments"]["vocabulary"] for edit in found.get("edits", []) if edit["use"] == USE]
    if edits:
        return Vocabulary.model_validate(edits[0])
    return Vocabulary.load(directory) if found.get("vocabulary") == FILE else None


def _rows(old: nn.Module, embedding: str, vocabulary: Vocabulary) -> nn.Embedding:
    """The embedding with the kept rows; it pads with the same token."""
    if not isinstance(old, nn.Embedding):
        raise ConfigError(f"`{embedding}` is a {type(old).__name__}", expected="an nn.Embedding")
    weight = old.weight.detach()[vocabulary.ids].clone()
    pad = None if old.padding_idx is None else int(vocabulary.new[old.padding_idx])
    new = nn.Embedding(
        len(weight),
        weight.shape[1],
        padding_idx=None if pad is None or pad < 0 else pad,
        max_norm=old.max_norm,
        norm_type=old.norm_type,
        scale_grad_by_freq=old.scale_grad_by_freq,
        sparse=old.sparse,
        _weight=weight,
    )
    new.weight.requires_grad_(old.weight.requires_grad)
    return new.train(old.training)


def _renumber(config: Any, vocabulary: Vocabulary) -> None:
    """Have a transformers configuration agree: `vocab_size`, and the ids of single tokens."""
    if getattr(config, "vocab_size", None) is None:
        return
    config.vocab_size = len(vocabulary.ids)
    for name, value in list(vars(config).items()):
        if name.endswith("_token_id") and isinstance(value, int) and 0 <= value < len(vocabulary.new):
            new = int(vocabulary.new[value])
            setattr(config, name, None if new < 0 else new)
