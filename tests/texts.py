"""Texts with tokenizers that were trained on a few of them, a task on them, and tiny models that read them."""

import random
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput

from pipeline.base.batches import Inputs
from pipeline.forms.text.remapped import split as split_model
from pipeline.forms.text.vocabulary import Vocabulary
from pipeline.model import TorchModel
from pipeline.task import Split, Task, classification

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NAMES = {name: f"[{name[:3].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token")}
GOOD, BAD = ("good", "fine", "lovely", "brilliant"), ("bad", "dull", "awful", "dreadful")
NEUTRAL = ("the", "film", "plot", "music", "ending", "was", "quite", "rather", "story", "acting")
UNUSED = ("hippopotamus", "quantum", "zebra", "xylophone", "kayak", "jukebox", "wavy", "vortex")
LENGTH = 24


def wordpiece(texts: Iterable[str], size: int = 120, last: str = "", **settings: Any) -> PreTrainedTokenizerFast:
    """A tokenizer as BERT has it, of the pieces that cover most; the library's trainer gives other ids each time.

    Args:
        texts: with the words.
        size: tokens at most.
        last: "template", "bert" or "sequence": the special ones come after the others, and who puts them around texts.
        settings: of transformers' form.
    """
    normalizer, splitter, covered = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), Counter[str]()
    for text in texts:
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
            for start, end in combinations(range(len(word) + 1), 2):
                covered["##" * (start > 0) + word[start:end]] += end - start
    characters = sorted(piece for piece in covered if len(piece.removeprefix("##")) == 1)
    others = sorted(covered.keys() - {*characters}, key=lambda piece: (-covered[piece], piece))
    pieces = [*characters, *others][: size - len(SPECIAL)]
    pieces = [*pieces, *SPECIAL] if last else [*SPECIAL, *pieces]
    model = models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]", max_input_chars_per_word=20)
    made = Tokenizer(model)
    made.normalizer, made.pre_tokenizer = normalizer, splitter
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    found = fast(made, **settings)
    if last == "bert":
        ends = [(name, pieces.index(name)) for name in ("[SEP]", "[CLS]")]
        found.backend_tokenizer.post_processor = processors.BertProcessing(*ends)
    if last == "sequence":
        found.backend_tokenizer.post_processor = processors.Sequence([found.backend_tokenizer.post_processor])
    return found


def wordlevel(texts: Iterable[str], **settings: Any) -> PreTrainedTokenizerFast:
    """A token for each word."""
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return fast(made, **settings)


def fast(made: Tokenizer, **settings: Any) -> PreTrainedTokenizerFast:
    """The tokenizer in transformers' form, with [CLS] and [SEP] around texts."""
    ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, mask_token="[MASK]", **NAMES, **settings)


def reviews(count: int, seed: int, extra: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    """Different sentences with one word of opinion, and 1 where it is a good one; `extra` words stand in some."""
    choose, seen, made = random.Random(seed), set[str](), list[tuple[str, int]]()
    while len(made) < count:
        label = choose.randrange(2)
        words = [*choose.choices(NEUTRAL + extra, k=choose.randint(4, 8)), choose.choice(GOOD if label else BAD)]
        text = " ".join(choose.sample(words, len(words)))
        if text not in seen:
            seen.add(text)
            made.append((text, label))
    return made


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """One that knows words that the training texts do not use."""
    return wordpiece([text for text, _ in reviews(400, 0, UNUSED)], 260)


def task(train: int = 96, padded: bool = True, types: bool = False, extra: bool = False) -> Task:
    """Reviews as `input_ids` and `attention_mask` (24,), or as long as each batch's longest where not `padded`.

    Args:
        train: examples.
        padded: to a fixed length.
        types: with `token_type_ids`.
        extra: validation and test have words that train has not.
    """
    words = UNUSED if extra else ()
    splits = []
    for part in (reviews(train, 1), reviews(48, 2, words), reviews(64, 3, words)):
        rows = [example(text, label, types) for text, label in part]
        splits.append(Split([(fixed(inputs), y) for inputs, y in rows]) if padded else Split(rows, pad))
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if types or name != "token_type_ids"]
    axes = {} if padded else {name: {1: "tokens"} for name in names}
    return classification(splits[0], splits[1], splits[2], tokenizer=tokenizer(), axes=axes, labels=("bad", "good"))


def example(text: str, label: int, types: bool) -> tuple[Inputs, Tensor]:
    """A text as its tokenizer puts it, unpadded."""
    made = tokenizer()(text, return_token_type_ids=types)
    return {name: torch.tensor(value) for name, value in made.items()}, torch.tensor(label)


def fixed(inputs: Inputs, length: int = LENGTH) -> Inputs:
    """One example's inputs, padded; the padding is 0 in all of them."""
    return {name: nn.functional.pad(value, (0, length - len(value))) for name, value in inputs.items()}


def pad(rows: list[tuple[Inputs, Tensor]]) -> tuple[Inputs, Tensor]:
    """A batch as long as its longest example."""
    longest = max(len(inputs["input_ids"]) for inputs, _ in rows)
    padded = [fixed(inputs, longest) for inputs, _ in rows]
    return {name: torch.stack([row[name] for row in padded]) for name in padded[0]}, torch.stack([y for _, y in rows])


class Bert(BertForSequenceClassification):
    """Gives `logits` alone."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """(N, L) each -> logits (N, 2)."""
        return SequenceClassifierOutput(logits=super().forward(input_ids, attention_mask, token_type_ids).logits)


def bert(hidden: int = 16, spare: int = 3) -> Bert:
    """A tiny encoder, untrained, with some rows more than there are tokens."""
    config = BertConfig(
        vocab_size=len(tokenizer()) + spare,
        hidden_size=hidden,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        attn_implementation="eager",
    )
    return Bert(config)


class Bag(nn.Module):
    """The mean of the tokens' vectors through two layers, of which the first has channels to prune."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.tokens = nn.Embedding(len(tokenizer()), width, padding_idx=0)
        self.body = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 2))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(N, L) each -> (N, 2)."""
        mask = attention_mask[..., None].to(self.tokens.weight.dtype)
        return self.body((self.tokens(input_ids) * mask).sum(1) / mask.sum(1))


class Words(nn.Module):
    """Reads `input_ids` alone, by position."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(len(tokenizer()), 8), nn.Linear(8, 2)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, L) -> (N, 2)."""
        return self.head(self.tokens(ids).mean(1))


def vocabulary_of(model: TorchModel) -> Vocabulary:
    """What is left of the tokens of a model whose vocabulary was pruned."""
    vocabulary = split_model(model.module)[1]
    assert vocabulary
    return vocabulary


def answers_alone(tokenizer: Tokenizer, file: Path) -> Any:
    """Logits of reviews with unused words as whoever deploys has them, by the tokenizer and the runtime alone."""
    encoded = tokenizer.encode_batch([text for text, _ in reviews(48, 2, UNUSED)])
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    feed = {name: np.array([getattr(one, column) for one in encoded]) for name, column in columns.items()}
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {port.name: feed[port.name] for port in session.get_inputs()})[0]
