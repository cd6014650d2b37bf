"""Tokenizers of byte pairs and unigrams, trained on a few texts, and a task on reviews with one of them."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pipeline.base.batches import Inputs
from pipeline.task import Split, Task, classification
from tests import texts

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
NAMES = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def unigram(given: Iterable[str], size: int = 150, way: Any = None, **settings: Any) -> PreTrainedTokenizerFast:
    """As SentencePiece makes them: T5 with Metaspace, XLM-R with what `way` splits by before it."""
    made = Tokenizer(models.Unigram())
    space = pre_tokenizers.Metaspace()
    made.pre_tokenizer = pre_tokenizers.Sequence([way, space]) if way else space
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    made.train_from_iterator(given, trainer)
    return fast(made, **settings)


def falling_back(kind: str, given: Sequence[str], **settings: Any) -> PreTrainedTokenizerFast:
    """Unigrams or byte pairs whose unknown characters become bytes, as Llama's do."""
    found = (unigram if kind == "unigram" else bpe)(given).backend_tokenizer
    model = json.loads(found.to_str())["model"]
    if kind == "unigram":
        pieces = [(piece, score) for piece, score in model["vocab"]] + [(piece, 0.0) for piece in BYTES]
        found.model = models.Unigram(pieces, model["unk_id"], byte_fallback=True)
    else:
        vocab = model["vocab"] | {piece: len(model["vocab"]) + i for i, piece in enumerate(BYTES)}
        merges = [tuple(pair) for pair in model["merges"]]
        found.model = models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True)
    return fast(found, **settings)


def bpe(given: Iterable[str], size: int = 150, split: bool = True, **settings: Any) -> PreTrainedTokenizerFast:
    """Byte pairs of characters, with a mark for spaces; merges cross words where they are not `split`."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    made.train_from_iterator(given, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False))
    return fast(made, **settings)


def byte_level(
    given: Iterable[str], size: int = 400, space: bool = False, way: Any = None, **settings: Any
) -> PreTrainedTokenizerFast:
    """Byte pairs of bytes: as RoBERTa's, with a space before the first word where asked; or after another split."""
    made = Tokenizer(models.BPE())
    last = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=way is None)
    made.pre_tokenizer = pre_tokenizers.Sequence([way, last]) if way else last
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(given, trainer)
    return fast(made, **settings)


def by_regex() -> Any:
    """Splits as tokenizers since GPT-4 do, by an expression of their own."""
    return pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")


def fast(made: Tokenizer, **settings: Any) -> PreTrainedTokenizerFast:
    """The tokenizer in transformers' form, with <s> and </s> around texts, two between."""
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL[:-1]])
    made.add_special_tokens([AddedToken("<mask>", special=True, normalized=False, lstrip=True)])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(name, made.token_to_id(name)) for name in ("<s>", "</s>")],
    )
    named = {f"{name}_token": token for name, token in NAMES.items()}
    return PreTrainedTokenizerFast(tokenizer_object=made, **named, **settings)


def task(tokenizer: PreTrainedTokenizerFast, extra: bool = False) -> Task:
    """Reviews as `input_ids` and `attention_mask`, as long as each batch's longest.

    Args:
        tokenizer: that makes them.
        extra: validation and test have words that train has not.
    """
    words, pad = texts.UNUSED if extra else (), tokenizer.convert_tokens_to_ids("<pad>")

    def collate(rows: list[tuple[Inputs, torch.Tensor]]) -> tuple[Inputs, torch.Tensor]:
        ids = torch.nn.utils.rnn.pad_sequence([inputs["input_ids"] for inputs, _ in rows], True, pad)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(inputs["input_ids"]) for inputs, _ in rows], True)
        return {"input_ids": ids, "attention_mask": mask}, torch.stack([label for _, label in rows])

    splits = []
    for part in (texts.reviews(96, 1), texts.reviews(48, 2, words), texts.reviews(64, 3, words)):
        rows = [({"input_ids": torch.tensor(tokenizer(text)["input_ids"])}, torch.tensor(y)) for text, y in part]
        splits.append(Split(rows, collate))
    axes = {name: {1: "tokens"} for name in ("input_ids", "attention_mask")}
    return classification(*splits, tokenizer=tokenizer, axes=axes, labels=("bad", "good"))


def reviews_too() -> list[str]:
    """Texts that use words which the task's training data do not."""
    return [text for text, _ in texts.reviews(400, 0, texts.UNUSED)]
