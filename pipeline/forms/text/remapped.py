"""A module whose vocabulary was pruned, behind the translation of its inputs, which no tracer sees through."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.forms.text.vocabulary import FILE, Vocabulary

USE = "pipeline.forms.text.remapped:without_tokens"


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

    Embeddings and output layers that are tied to it lose the same rows.

    Args:
        module: it is changed.
        embedding: the name of its nn.Embedding.
        vocabulary: the fields of a Vocabulary.
    """
    pruned_vocabulary = Vocabulary.model_validate(vocabulary)
    old = module.get_submodule(embedding)
    if not isinstance(old, nn.Embedding):
        raise ConfigError(f"`{embedding}` is a {type(old).__name__}", expected="an nn.Embedding")
    cut_rows(module, old, pruned_vocabulary)
    for config in {id(config): config for config in _configs(module)}.values():
        _renumber(config, pruned_vocabulary)
    return Translated(module, pruned_vocabulary)


def split(module: nn.Module) -> tuple[nn.Module, Vocabulary | None]:
    """The module that can be traced, and what translates its inputs, if anything does."""
    return (module.inner, module.vocabulary) if isinstance(module, Translated) else (module, None)


def saved_vocabulary(directory: Path) -> Vocabulary | None:
    """What translates the inputs of a saved model of either form."""
    description = json.loads((directory / "model.json").read_text())
    edits = [edit["arguments"]["vocabulary"] for edit in description.get("edits", []) if edit["use"] == USE]
    if edits:
        return Vocabulary.model_validate(edits[0])
    return Vocabulary.load(directory) if description.get("vocabulary") == FILE else None


def tied_to(module: nn.Module, weight: nn.Parameter) -> dict[str, nn.Module]:
    """The parts of a module that hold this very weight, by their names."""
    parts = module.named_modules()
    return {name: part for name, part in parts if any(p is weight for p in part.parameters(recurse=False))}


def cut_rows(module: nn.Module, embedding: nn.Embedding, vocabulary: Vocabulary) -> None:
    """Leave the rows of the kept tokens, in place: of the embedding, of what is tied to it, and of its output's bias.

    Tied stays tied. The bias of an output layer is its own, shared with its head as in BERT's, or the buffer
    `final_logits_bias` of BART and Marian.
    """
    rows, weight = embedding.num_embeddings, embedding.get_parameter("weight")
    parts = tied_to(module, weight).values()
    _replace(module, weight, vocabulary)
    for part in parts:
        if isinstance(part, nn.Embedding):
            pad = -1 if part.padding_idx is None else int(vocabulary.new[part.padding_idx])
            part.num_embeddings, part.padding_idx = len(vocabulary.ids), None if pad < 0 else pad
        elif isinstance(part, nn.Linear):
            part.out_features = len(vocabulary.ids)
            if part.bias is not None:
                _replace(module, part.bias, vocabulary)
    for part in module.modules():
        bias = dict(part.named_buffers(recurse=False)).get("final_logits_bias")
        if bias is not None and bias.shape[-1] == rows and any(isinstance(each, nn.Linear) for each in parts):
            part.register_buffer("final_logits_bias", bias[..., vocabulary.ids].clone())


def _replace(module: nn.Module, old: nn.Parameter, vocabulary: Vocabulary) -> None:
    """Put the kept rows of a parameter everywhere where it is held."""
    new = nn.Parameter(old.detach()[vocabulary.ids].clone(), requires_grad=old.requires_grad)
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter is old:
                setattr(part, name, new)


def _configs(module: nn.Module) -> Iterator[Any]:
    """What transformers' models of texts say of themselves, and of how they generate."""
    for part in module.modules():
        if getattr(getattr(part, "config", None), "vocab_size", None) is not None:
            yield part.config
        if getattr(part, "generation_config", None) is not None:
            yield part.generation_config


def _renumber(config: Any, vocabulary: Vocabulary) -> None:
    """Have a transformers configuration agree: `vocab_size`, and the ids of single tokens; None for one that left."""
    if hasattr(config, "vocab_size"):
        config.vocab_size = len(vocabulary.ids)
    for name, value in list(vars(config).items()):
        if name == "bad_words_ids" and value:
            word_lists = [[_renumbered(i, vocabulary) for i in words] for words in value]
            config.bad_words_ids = [words for words in word_lists if None not in words] or None
        elif name.endswith("_token_id") or name in ("suppress_tokens", "begin_suppress_tokens"):
            several = isinstance(value, list)
            ids = [_renumbered(i, vocabulary) for i in (value if several else [value])]
            setattr(config, name, [i for i in ids if i is not None] if several else ids[0])


def _renumbered(value: Any, vocabulary: Vocabulary) -> Any:
    """The new id, None for one that left; what is no id of the tokenizer stays."""
    if not isinstance(value, int) or not 0 <= value < len(vocabulary.new):
        return value
    new = int(vocabulary.new[value])
    return None if new < 0 else new
