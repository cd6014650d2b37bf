"""The embedding of a model's tokens: which it is, and what forbids that rows leave it."""

from contextlib import suppress
from typing import Any

import torch
from torch import nn

from pipeline.base.use import nearest
from pipeline.errors import ShrinkError, StageError
from pipeline.forms.text.remapped import tied_to
from pipeline.forms.text.vocabulary import Vocabulary
from pipeline.model import TorchModel, same


def size_of(tokenizer: Any) -> int:
    """Rows that an embedding needs for a tokenizer: the largest id and one; 0 without a tokenizer."""
    return max(tokenizer.get_vocab().values()) + 1 if tokenizer is not None else 0


def find_embedding(module: nn.Module, rows: int, name: str | None, error: type[ShrinkError]) -> str:
    """The name of the embedding of the tokens; of several that are tied, of the first.

    Args:
        module: a transformers model, or any with one nn.Embedding of exactly that many rows.
        rows: that the tokenizer needs; a transformers model may have more.
        name: the embedding's, where it is known.
        error: what is raised where there is none, several fit, or its weight is tied to what is no layer of tokens.
    """
    embeddings = {other: part for other, part in module.named_modules() if isinstance(part, nn.Embedding)}
    if name is not None and name not in embeddings:
        problem = f"`embedding` names `{name}`, which is no nn.Embedding of the model{nearest(name, list(embeddings))}"
        raise error(problem)
    input_embeddings = [_input_embedding(part) for part in module.modules()]
    fitting = [other for other, part in embeddings.items() if any(part is one for one in input_embeddings)]
    fitting = fitting or [other for other, part in embeddings.items() if part.num_embeddings == rows]
    first = {id(embeddings[other].weight): other for other in reversed(fitting)}
    names = [name] if name is not None else list(first.values())
    if len(names) != 1 or embeddings[names[0]].num_embeddings < rows:
        listing = ", ".join(f"`{other}` ({part.num_embeddings:,})" for other, part in embeddings.items()) or "none"
        problem = f"the tokenizer has {rows:,} tokens, and the model's embeddings are {listing}"
        expected = "one nn.Embedding with a row for each token"
        raise error(problem, expected=expected, fix="Name it, such as `embedding: encoder.tokens`")
    for owner, other in tied_to(module, embeddings[names[0]].get_parameter("weight")).items():
        if not isinstance(other, nn.Embedding | nn.Linear):
            told_so = f"the weight of `{names[0]}` is also that of `{owner}`, a {type(other).__name__}"
            raise error(told_so, expected="only an nn.Embedding or nn.Linear tied to it")
    return names[0]


def check_outputs(model: TorchModel, name: str, error: type[ShrinkError]) -> None:
    """Refuse a model that scores tokens, for targets and scores are in ids of the whole tokenizer.

    Args:
        model: whose example is predicted once.
        name: of its embedding.
        error: what is raised where an output has as many columns as the embedding has rows.
    """
    rows = len(model.module.get_submodule(name).get_parameter("weight"))
    for output, values in model.predict(model.example).items():
        if values.shape[-1] == rows:
            problem = f"the output `{output}` has a score for each of {rows:,} tokens"
            expected = "a model that reads texts and writes none: the task's targets have the ids of all tokens"
            raise error(problem, expected=expected, fix="Leave prune.vocabulary out")


def check_positions(module: nn.Module, vocabulary: Vocabulary, error: type[ShrinkError]) -> None:
    """Refuse where the padding's id changes in a model that counts positions from it, as RoBERTa does."""
    for name, part in module.named_modules():
        if hasattr(part, "position_embeddings") and isinstance(getattr(part, "padding_idx", None), int):
            old, new = vocabulary.pad, int(vocabulary.new[vocabulary.pad])
            if old == new:
                continue
            problem = f"`{name}` counts positions from the padding's id, which would change from {old} to {new}"
            raise error(problem, expected="a tokenizer whose padding stands before all tokens that leave")


def check_values(model: TorchModel, pruned: TorchModel, vocabulary: Vocabulary) -> None:
    """Refuse where a text whose tokens all stay gives something else with fewer tokens, as a model's own ids would.

    Args:
        model: whose example is predicted once, its words replaced by tokens that stay.
        pruned: the same without the tokens that leave.
        vocabulary: what stays.
    """
    inputs, fixed = dict(model.example), {vocabulary.pad, *vocabulary.frame}
    words = torch.tensor([i for i in vocabulary.ids.tolist() if i not in fixed] or [vocabulary.pad])
    for text in vocabulary.texts:
        ids = inputs[text.ids]
        others = words[torch.arange(ids.numel()) * 7919 % len(words)].view(ids.shape).to(ids)  # from all over
        inputs[text.ids] = torch.where(torch.isin(ids, torch.tensor(sorted(fixed))), ids, others)
    before, after = (each.predict(inputs) for each in (model, pruned))
    for name, values in before.items():
        if not same(values, after[name]):
            problem = f"with fewer tokens `{name}` has other values for texts whose tokens all stay"
            fix = "The model goes by ids of its own, such as `ids == 102`: let it read them from its configuration"
            raise StageError(problem, expected="the same", fix=fix)


def _input_embedding(part: nn.Module) -> nn.Module | None:
    """What a transformers model says its tokens go into."""
    with suppress(NotImplementedError):  # as some say that have no tokens
        getter = getattr(part, "get_input_embeddings", None)
        return getter() if callable(getter) else None
    return None
