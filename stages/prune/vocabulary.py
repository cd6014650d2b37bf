"""Pruning of the vocabulary: tokens that the training data does not use leave the tokenizer and the embedding."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import Field, JsonValue
from torch import nn

from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, StageError, blame
from pipeline.forms.text.inputs import texts_in
from pipeline.forms.text.positions import positions
from pipeline.forms.text.prunable import check_tokenizer
from pipeline.forms.text.remapped import USE, split
from pipeline.forms.text.vocabulary import Vocabulary, ranges
from pipeline.model import Model, TorchModel
from pipeline.stage import Stage
from stages.prune.tokens.embedding import check_outputs, check_positions, check_values, find_embedding, size_of
from stages.prune.tokens.tokens import Counts, always_kept, changed_share, counted, most_frequent, unknown_share

TWICE: dict[str, Any] = {"found": "the vocabulary was pruned already", "fix": "Prune it once"}


class VocabularyPruning(Stage):
    """A model without the tokens that the training data does not use, and the tokenizer that goes with it.

    Choose it for text models whose embedding is much of their size, as it is of most small encoders. The model takes
    the task's inputs as before, translated; deployed it takes those of the pruned tokenizer, which `shrink package`
    puts beside it. Tokens are counted in train as it is, without augmentation. Any fast tokenizer does: of words, byte
    pairs (with a token stay those that merges make it of) or unigrams. Output layers and further embeddings that are
    tied to the embedding lose the same rows and stay tied.

    A model whose outputs are scores of tokens is refused, and so is an encoder-decoder that is given what it writes,
    as for translation: its targets and scores are in ids of the whole tokenizer.

    Example:
        - {use: prune.vocabulary, min_count: 2, keep: 8000}

    Reference: Amine Abdaoui, Camille Pradel and Gregoire Sigel, "Load What You Need: Smaller Versions of Multilingual
    BERT", 2020, arXiv:2010.05609, which drops the tokens that a language does not use.
    """

    narrows: ClassVar[bool] = True

    min_count: int = Field(1, ge=1, description="how often a token must occur in train to stay")
    keep: int | None = Field(None, ge=1, description="tokens that stay at most, the most frequent; null for any number")
    max_unknown: float = Field(
        0.01, ge=0, le=1, description="largest share of unknown tokens in validation, unless as many were before"
    )
    characters: bool = Field(
        True, description="keep the pieces of one character for all characters of train, so that its words can be cut"
    )
    embedding: str | None = Field(None, description="name of the nn.Embedding of the tokens; found unless given")

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse a tokenizer or inputs that cannot be translated, and a second pruning; warn of augmentation."""
        check_tokenizer(preview.tokenizer)
        texts_in(preview.model.example, {})
        if any(isinstance(stage, VocabularyPruning) for stage in before):
            raise ConfigError(**TWICE)
        if not before and isinstance(preview.model, TorchModel):
            name = find_embedding(preview.model.module, size_of(preview.tokenizer), self.embedding, ConfigError)
            check_outputs(preview.model, name, ConfigError)
        if preview.augment:
            yield "the task augments its training data, and tokens that this brings in are not counted"

    def outlook(self, model: Model, before: Sequence[Stage], preview: Preview) -> Model | None:
        """The layers stay."""
        return model

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The smaller model. Raises StageError where no token leaves, or too many of validation are unknown."""
        if split(model.module)[1]:
            raise StageError(**TWICE)
        name = find_embedding(model.module, size_of(ctx.tokenizer), self.embedding, StageError)
        check_outputs(model, name, StageError)
        whole = whole_vocabulary(model, ctx.tokenizer)
        with ctx.progress("counting tokens", len(ctx.train)) as advance:
            counts, longest = counted(ctx.train, whole, advance)
        vocabulary = whole.keeping(self._kept(counts, whole), whole.limit or longest)
        if len(vocabulary.ids) == len(whole.ids):
            problem = f"all {len(whole.ids):,} tokens occur in train or stay anyway"
            expected = "tokens to remove"
            raise StageError(problem, expected=expected, fix="Raise `min_count`, set `keep`, or leave the stage out")
        check_positions(model.module, vocabulary, StageError)
        self._report(model.module.get_submodule(name), whole, vocabulary, ctx)
        pruned = model.edited(USE, embedding=name, vocabulary=vocabulary.model_dump(mode="json"))
        check_values(model, pruned, vocabulary)
        return pruned

    def _kept(self, counts: Counts, whole: Vocabulary) -> set[int]:
        """The ids that stay: what must, and of the others those that occur often enough, the most frequent first."""
        must = always_kept(counts, whole, self.characters)
        if self.keep is not None and self.keep < len(must):
            others = self.characters and len(always_kept(counts, whole, False)) < len(must)
            what = "added tokens and pieces of one character" if others or whole.needed else "added tokens"
            fix = f"Raise `keep` to {len(must)} or more{', or set `characters: false`' if others else ''}"
            raise StageError(f"`keep` is {self.keep:,}, and {len(must):,} {what} stay anyway", fix=fix)
        rest = [i for i in whole.ids.tolist() if i not in must and counts[i] >= self.min_count]
        rest.sort(key=lambda i: (-counts[i], i))
        return most_frequent(rest, must, whole, self.keep)

    def _report(self, embedding: nn.Module, whole: Vocabulary, vocabulary: Vocabulary, ctx: Context) -> None:
        """Tell what left and what it does to validation. Raises StageError where too much of it is unknown."""
        weight = embedding.get_parameter("weight")
        rows, row_bytes = len(weight), weight.shape[1] * weight.element_size()
        unknown = {"before": unknown_share(ctx.validation, whole), "after": unknown_share(ctx.validation, vocabulary)}
        if unknown["after"] > max(self.max_unknown, unknown["before"]):
            after, before = f"{unknown['after']:.2%}", f"{unknown['before']:.2%}"
            problem = f"{after} of the tokens in validation would be unknown, {before} were"
            fix = "Lower `min_count`, raise `keep`, or raise `max_unknown` if accuracy holds"
            raise StageError(problem, expected=f"at most max_unknown: {self.max_unknown:g}", fix=fix)
        report: dict[str, JsonValue] = {
            "tokens": {"before": len(whole.ids), "after": len(vocabulary.ids)},
            "embedding_bytes": {"before": rows * row_bytes, "after": len(vocabulary.ids) * row_bytes},
            "tokenizer_bytes": {"before": len(whole.pruned.encode()), "after": len(vocabulary.pruned.encode())},
            "unknown_in_validation": {**unknown},
            "changed_in_validation": changed_share(ctx.validation, vocabulary),
        }
        ctx.report("vocabulary", report)


def whole_vocabulary(model: TorchModel, tokenizer: Any) -> Vocabulary:
    """All tokens of a tokenizer, and how the model takes them. Raises StageError for one that is not supported."""
    with blame(StageError, ""):
        text, texts = check_tokenizer(tokenizer), texts_in(model.example, model.axes)
    ids = [getattr(tokenizer, f"{name}_token_id", None) for name in ("cls", "sep", "bos", "eos")]
    frame = tuple(dict.fromkeys(i for i in ids if i is not None))
    kept, left = ranges(sorted(tokenizer.get_vocab().values())), tokenizer.padding_side == "left"
    limits = [tokenizer.model_max_length, positions(model.module)]
    limit = min((n for n in limits if n and n < 10**9), default=None)  # a tokenizer without one says 1e30
    pad = tokenizer.pad_token_id
    return Vocabulary(tokenizer=text, kept=kept, texts=texts, pad=pad, frame=frame, left=left, limit=limit)
