"""The JSON of a tokenizer: what is deployed beside a model, whether tokens can leave it, and what is left of it."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.errors import ConfigError

FILE = "tokenizer.json"
MODELS = ("WordPiece", "WordLevel")
SUPPORTED = "a fast tokenizer of words: WordPiece, as BERT's family has it, or WordLevel"


def canonical(tokenizer: Any) -> str | None:
    """A fast tokenizer as JSON without whitespace, and without the truncation and padding of its last call.

    None for a tokenizer that has no such form.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    return compact({**json.loads(backend.to_str()), "truncation": None, "padding": None})


def compact(value: Any) -> str:
    """JSON without whitespace."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def check_tokenizer(tokenizer: Any) -> str:
    """The canonical JSON of a tokenizer that can be pruned.

    Raises:
        ConfigError: there is none, it is no tokenizer of words, or it has no token for unknown words or for padding.
    """
    text = canonical(tokenizer)
    if text is None:
        found = "no tokenizer" if tokenizer is None else f"a {type(tokenizer).__name__}, which is no fast tokenizer"
        fix = "Give the Task its `tokenizer`, the one that made the inputs"
        raise ConfigError(f"the task has {found}", expected=SUPPORTED, fix=fix)
    model = json.loads(text)["model"]
    if model["type"] not in MODELS:
        fix = "Leave prune.vocabulary out; other stages work with any tokenizer"
        raise ConfigError(f"the task's tokenizer is a {model['type']} one", expected=SUPPORTED, fix=fix)
    if model["unk_token"] not in model["vocab"]:
        raise ConfigError(f"the tokenizer has no `{model['unk_token']}`", expected="a token for unknown words")
    if tokenizer.pad_token_id is None:
        raise ConfigError("the tokenizer has no padding token", expected="one, such as `[PAD]`")
    return text


def pieces_of(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    """All tokens of a tokenizer's JSON by their ids."""
    found = {i: piece for piece, i in tokenizer["model"]["vocab"].items()}
    return found | {token["id"]: token["content"] for token in tokenizer["added_tokens"]}


def prefix_of(tokenizer: Mapping[str, Any]) -> str | None:
    """What marks the pieces that continue a word, such as "##"; None where a word is a single token."""
    prefix = tokenizer["model"].get("continuing_subword_prefix")
    return None if prefix is None else str(prefix)


def prune(tokenizer: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """A tokenizer's JSON with the tokens of `new` alone, old id -> new id; all added tokens are among them."""
    model = tokenizer["model"]
    vocab = sorted((new[i], piece) for piece, i in model["vocab"].items() if i in new)
    return {
        **tokenizer,
        "model": {**model, "vocab": {piece: i for i, piece in vocab}},
        "added_tokens": [{**token, "id": new[token["id"]]} for token in tokenizer["added_tokens"]],
        "post_processor": _renumbered(tokenizer["post_processor"], new),
    }


def _renumbered(processor: Any, new: Mapping[int, int]) -> Any:
    """What puts the frame around a text, with new ids: "sep": [token, id], or special tokens with lists of ids."""
    if processor is None:
        return None
    found = dict(processor)
    found |= {name: [found[name][0], new[found[name][1]]] for name in ("sep", "cls") if name in found}
    if "special_tokens" in found:
        tokens = found["special_tokens"].items()
        found["special_tokens"] = {name: {**token, "ids": [new[i] for i in token["ids"]]} for name, token in tokens}
    if "processors" in found:
        found["processors"] = [_renumbered(inner, new) for inner in found["processors"]]
    return found
