"""Pruning of the vocabulary: tokens that the training data does not use leave the tokenizer and the embedding."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue
from torch import nn

from pipeline.errors import ConfigError, ShrinkError, StageError, blame
from pipeline.model import TorchModel
from pipeline.stage import Context, Outlook, Stage
from pipeline.task import Split
from pipeline.texts import texts_in
from pipeline.tokenizer import check_tokenizer
from pipeline.translated import USE, split
from pipeline.use import nearest
from pipeline.vocabulary import Vocabulary, ranges

BATCH_SIZE = 256
TWICE: dict[str, Any] = {"found": "the vocabulary was pruned already", "fix": "Prune it once"}

Counts = NDArray[np.int64]


class VocabularyPruning(Stage):
    """A model without the tokens that the training data does not use, and the tokenizer that goes with it.

    Choose it for text models whose embedding is much of their size, as it is of most small encoders. The model takes
    the task's inputs as before, translated; deployed it takes those of the pruned tokenizer, which `shrink package`
    puts beside it. Tokens are counted in train as it is, without augmentation.

    Example:
        - {use: prune.vocabulary, min_count: 2, keep: 8000}

    Reference: Amine Abdaoui, Camille Pradel and Gregoire Sigel, "Load What You Need: Smaller Versions of Multilingual
    BERT", 2020, arXiv:2010.05609, which drops the tokens that a language does not use.
    """

    min_count: int = Field(1, ge=1, description="how often a token must occur in train to stay")
    keep: int | None = Field(None, ge=1, description="tokens that stay at most, the most frequent; null for any number")
    max_unknown: float = Field(
        0.01, ge=0, le=1, description="largest share of unknown tokens in validation, unless as many were before"
    )
    characters: bool = Field(
        True, description="keep the pieces of one character for all characters of train, so that its words can be cut"
    )
    embedding: str | None = Field(None, description="name of the nn.Embedding of the tokens; found unless given")

    def check(self, before: Sequence[Stage], outlook: Outlook) -> Iterable[str]:
        """Refuse a tokenizer or inputs that cannot be translated, and a second pruning; warn of augmentation."""
        check_tokenizer(outlook.tokenizer)
        texts_in(outlook.model.example, {})
        if any(isinstance(stage, VocabularyPruning) for stage in before):
            raise ConfigError(**TWICE)
        if not before and isinstance(outlook.model, TorchModel):
            find_embedding(outlook.model.module, size_of(outlook.tokenizer), self.embedding, ConfigError)
        if outlook.augmented:
            yield "the task augments its training data, and tokens that this brings in are not counted"

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The smaller model. Raises StageError where no token leaves, or too many of validation are unknown."""
        if split(model.module)[1]:
            raise StageError(**TWICE)
        name = find_embedding(model.module, size_of(ctx.tokenizer), self.embedding, StageError)
        whole = whole_vocabulary(model, ctx.tokenizer)
        with ctx.progress("counting tokens", len(ctx.train)) as advance:
            counts, longest = counted(ctx.train, whole, advance)
        found = whole.keeping(self._kept(counts, whole), whole.limit or longest)
        if len(found.ids) == len(whole.ids):
            raise StageError(
                f"all {len(whole.ids):,} tokens occur in train or stay anyway",
                expected="tokens to remove",
                fix="Raise `min_count`, set `keep`, or leave the stage out",
            )
        self._report(model.module.get_submodule(name), whole, found, ctx)
        return model.edited(USE, embedding=name, vocabulary=found.model_dump(mode="json"))

    def _kept(self, counts: Counts, whole: Vocabulary) -> list[int]:
        """The ids that stay: what must, and of the others those that occur often enough, the most frequent first."""
        must = always_kept(counts, whole, self.characters)
        if self.keep is not None and self.keep < len(must):
            others = ", or set `characters: false`" if self.characters and whole.prefix else ""
            what = "added tokens and pieces of one character" if others else "added tokens"
            fix = f"Raise `keep` to {len(must)} or more{others}"
            raise StageError(f"`keep` is {self.keep:,}, and {len(must):,} {what} stay anyway", fix=fix)
        rest = [i for i in whole.ids.tolist() if i not in must and counts[i] >= self.min_count]
        rest.sort(key=lambda i: (-counts[i], i))
        return [*must, *rest[: None if self.keep is None else self.keep - len(must)]]

    def _report(self, embedding: nn.Module, whole: Vocabulary, found: Vocabulary, ctx: Context) -> None:
        """Tell what left and what it does to validation. Raises StageError where too much of it is unknown."""
        rows, row_bytes = _sizes(embedding)
        unknown = {"before": unknown_share(ctx.validation, whole), "after": unknown_share(ctx.validation, found)}
        if unknown["after"] > max(self.max_unknown, unknown["before"]):
            raise StageError(
                f"{unknown['after']:.2%} of the tokens in validation would be unknown, {unknown['before']:.2%} were",
                expected=f"at most max_unknown: {self.max_unknown:g}",
                fix="Lower `min_count`, raise `keep`, or raise `max_unknown` if accuracy holds",
            )
        report: dict[str, JsonValue] = {
            "tokens": {"before": len(whole.ids), "after": len(found.ids)},
            "embedding_bytes": {"before": rows * row_bytes, "after": len(found.ids) * row_bytes},
            "tokenizer_bytes": {"before": len(whole.pruned.encode()), "after": len(found.pruned.encode())},
            "unknown_in_validation": {**unknown},
            "changed_in_validation": changed_share(ctx.validation, found),
        }
        ctx.report("vocabulary", report)


def whole_vocabulary(model: TorchModel, tokenizer: Any) -> Vocabulary:
    """All tokens of a tokenizer, and how the model takes them. Raises StageError for one that is not supported."""
    with blame(StageError, ""):
        text, texts = check_tokenizer(tokenizer), texts_in(model.example, model.axes)
    frame = [getattr(tokenizer, f"{name}_token_id", None) for name in ("cls", "sep", "bos", "eos")]
    configs = [part.config for part in model.module.modules() if hasattr(part, "config")]
    limits = [tokenizer.model_max_length, *(getattr(c, "max_position_embeddings", None) for c in configs)]
    known = [limit for limit in limits if limit and limit < 10**9]  # a tokenizer without one says 1e30
    return Vocabulary(
        tokenizer=text,
        kept=ranges(sorted(tokenizer.get_vocab().values())),
        texts=texts,
        pad=tokenizer.pad_token_id,
        frame=tuple(dict.fromkeys(i for i in frame if i is not None)),
        left=tokenizer.padding_side == "left",
        limit=min(known, default=None),
    )


def size_of(tokenizer: Any) -> int:
    """Rows that an embedding needs for a tokenizer: the largest id and one; 0 without a tokenizer."""
    return max(tokenizer.get_vocab().values()) + 1 if tokenizer is not None else 0


def find_embedding(module: nn.Module, rows: int, name: str | None, error: type[ShrinkError]) -> str:
    """The name of the embedding of the tokens, whose weight no other part of the module uses.

    Args:
        module: a transformers model, or any with one nn.Embedding of exactly that many rows.
        rows: that the tokenizer needs; a transformers model may have more.
        name: the embedding's, where it is known.
        error: what is raised where there is none, several fit, or its weight is tied.
    """
    found = {other: part for other, part in module.named_modules() if isinstance(part, nn.Embedding)}
    if name is not None and name not in found:
        raise error(f"`embedding` names `{name}`, which is no nn.Embedding of the model{nearest(name, list(found))}")
    told = [_input_embedding(part) for part in module.modules()]
    fitting = [other for other, part in found.items() if any(part is one for one in told)]
    fitting = fitting or [other for other, part in found.items() if part.num_embeddings == rows]
    names = [name] if name is not None else fitting
    if len(names) != 1 or found[names[0]].num_embeddings < rows:
        seen = ", ".join(f"`{other}` ({part.num_embeddings:,})" for other, part in found.items()) or "none"
        raise error(
            f"the tokenizer has {rows:,} tokens, and the model's embeddings are {seen}",
            expected="one nn.Embedding with a row for each token",
            fix="Name it, such as `embedding: encoder.tokens`",
        )
    part = found[names[0]]
    for owner, other in module.named_modules():
        if other is not part and any(parameter is part.weight for parameter in other.parameters(recurse=False)):
            expected, fix = "an embedding with a weight of its own", "A model that writes texts keeps its vocabulary"
            raise error(f"the weight of `{names[0]}` is also that of `{owner}`", expected=expected, fix=fix)
    return names[0]


def counted(data: Split, whole: Vocabulary, advance: Callable[[int], None]) -> tuple[Counts, int]:
    """(tokens,) how often each id occurs in a split, padding left out; and the longest sequence."""
    counts, longest = np.zeros(len(whole.new), dtype=np.int64), 0
    for batch in data.loader(BATCH_SIZE):
        longest = max(longest, *(batch.inputs[text.ids].shape[1] for text in whole.texts))
        for tokens in whole.tokens(batch.inputs, whole.pad):
            counts += np.bincount(tokens, minlength=len(counts))
        advance(len(batch.index))
    return counts, longest


def always_kept(counts: Counts, whole: Vocabulary, characters: bool) -> set[int]:
    """Ids of added and unknown tokens, and where asked the pieces of one character for all that occur in train."""
    must = {*whole.added, *whole.frame, whole.pad, int(whole.ids[whole.unknown])}
    if not characters or whole.prefix is None:
        return must
    words = [whole.pieces[i].removeprefix(whole.prefix) for i in np.flatnonzero(counts).tolist() if i not in must]
    wanted = {start + character for character in set("".join(words)) for start in ("", whole.prefix)}
    return must | {i for i, piece in whole.pieces.items() if piece in wanted}


def unknown_share(data: Split, vocabulary: Vocabulary) -> float:
    """Share of unknown tokens in what a split becomes; what stands around texts does not count."""
    unknown = total = 0
    around = [int(vocabulary.new[i]) for i in vocabulary.frame]
    for batch in data.loader(BATCH_SIZE):
        for tokens in vocabulary.tokens(vocabulary.translate(batch.inputs), int(vocabulary.new[vocabulary.pad])):
            unknown += int((tokens == vocabulary.unknown).sum())
            total += int((~np.isin(tokens, around)).sum())
    return unknown / max(total, 1)


def changed_share(data: Split, vocabulary: Vocabulary) -> float:
    """Share of the examples of a split in which a token has left."""
    changed = 0
    for batch in data.loader(BATCH_SIZE):
        lost = [(vocabulary.new[batch.inputs[text.ids].numpy()] < 0).any(1) for text in vocabulary.texts]
        changed += int(np.any(lost, axis=0).sum())
    return changed / max(len(data), 1)


def _input_embedding(part: nn.Module) -> nn.Module | None:
    """What a transformers model says its tokens go into."""
    with suppress(NotImplementedError):  # as some say that have no tokens
        found = getattr(part, "get_input_embeddings", None)
        return found() if callable(found) else None
    return None


def _sizes(embedding: nn.Module) -> tuple[int, int]:
    """Rows, and bytes of one."""
    weight = embedding.get_parameter("weight")
    return len(weight), weight.shape[1] * weight.element_size()
