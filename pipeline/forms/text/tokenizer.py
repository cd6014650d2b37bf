"""The JSON of a tokenizer: what is deployed beside a model, and what is left of it without some tokens."""

import json
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

FILE = "tokenizer.json"
WORDS, SUBWORDS = ("WordPiece", "WordLevel"), ("BPE", "Unigram")


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


def pieces_of(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    """All tokens of a tokenizer's JSON by their ids."""
    vocab = tokenizer["model"]["vocab"]
    ordered = [piece for piece, _ in vocab] if isinstance(vocab, list) else vocab  # a list has scores beside
    pieces = dict(enumerate(ordered)) if isinstance(vocab, list) else {i: piece for piece, i in vocab.items()}
    return pieces | {token["id"]: token["content"] for token in tokenizer["added_tokens"]}


def added_in(tokenizer: Mapping[str, Any]) -> list[int]:
    """Ids of added tokens, which are found before a text is cut."""
    return [token["id"] for token in tokenizer["added_tokens"]]


def unknown_in(tokenizer: Mapping[str, Any]) -> int | None:
    """The id of what cannot be told; None where the tokenizer has none."""
    model = tokenizer["model"]
    unknown_id = model["unk_id"] if model["type"] == "Unigram" else model["vocab"].get(model["unk_token"])
    return None if unknown_id is None else int(unknown_id)


def prefix_of(tokenizer: Mapping[str, Any]) -> str:
    """What marks the pieces that continue a word, such as "##"; empty where a word is a single token."""
    return str(tokenizer["model"].get("continuing_subword_prefix") or "")


def prune(tokenizer: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """A tokenizer's JSON with the tokens of `new` alone, old id -> new id in the same order.

    All added and unknown tokens are among them. Of byte pairs those merges stay whose parts and result do.
    """
    return {
        **tokenizer,
        "model": _pruned_model(tokenizer["model"], new),
        "added_tokens": [{**token, "id": new[token["id"]]} for token in tokenizer["added_tokens"]],
        "post_processor": _renumbered(tokenizer["post_processor"], new),
    }


def _pruned_model(model: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    if model["type"] == "Unigram":
        vocab = [entry for i, entry in enumerate(model["vocab"]) if i in new]
        return {**model, "vocab": vocab, "unk_id": model["unk_id"] if model["unk_id"] is None else new[model["unk_id"]]}
    vocabulary = dict(sorted(((piece, new[i]) for piece, i in model["vocab"].items() if i in new), key=itemgetter(1)))
    if model["type"] != "BPE":
        return {**model, "vocab": vocabulary}
    merges = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= vocabulary.keys()]
    return {**model, "vocab": vocabulary, "merges": merges}


def _renumbered(processor: Any, new: Mapping[int, int]) -> Any:
    """What puts the frame around a text, with new ids: "sep": [token, id], or special tokens with lists of ids."""
    if processor is None:
        return None
    new_processor = {**processor}
    for name in new_processor.keys() & {"sep", "cls"}:
        new_processor[name] = [processor[name][0], new[processor[name][1]]]
    if "special_tokens" in new_processor:
        tokens = new_processor["special_tokens"].items()
        new_processor["special_tokens"] = {
            name: {**token, "ids": [new[i] for i in token["ids"]]} for name, token in tokens
        }
    if "processors" in new_processor:
        new_processor["processors"] = [_renumbered(inner, new) for inner in new_processor["processors"]]
    return new_processor
