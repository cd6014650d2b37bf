"""What a teacher generates on the training inputs: computed once, scored as the task scores, made into examples."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.errors import Interruption, StageError, blame
from pipeline.task import AsTarget, Split, kind
from stages.kd.cache import CachedValues, fill
from stages.kd.teacher import Teacher
from stages.kd.teacher_config import code_of, inputs_key

WHAT = "the teacher's sequences"
NOTHING = -1  # stands after the end of a sequence
BATCH_SIZE = 128  # of the scoring, which holds tokens alone


@dataclass(frozen=True)
class Beams:
    """How to generate.

    Args:
        count: sequences an example, the likeliest first.
        longest: tokens at most; None for the width of `decoder_input_ids`, or what the model is set to.
        at_once: examples that are generated together.
        use: function(module, inputs, beams, max_tokens) -> tokens (N, beams, T) or (N, T), with -1 after their end;
            None for the module's own `generate`.
    """

    count: int
    longest: int | None = None
    at_once: int = 32
    use: Reference | None = None

    def __call__(self, module: nn.Module, inputs: Inputs) -> Tensor:
        """Tokens (N, beams, T), int32, with -1 after their end. Raises StageError where they are something else."""
        if self.use is None:
            return beam_search(module, inputs, self.count, self.longest).int()
        with blame(StageError, f"generate ({self.use.use})"):
            ids = self.use.call(module, inputs, self.count, self.longest)
        size = len(next(iter(inputs.values())))
        if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.ndim not in (2, 3) or len(ids) != size:
            expected = f"tokens ({size}, beams, T) or ({size}, T), integers"
            raise StageError(f"it gave {kind(ids)}", where=f"generate ({self.use.use})", expected=expected)
        return ids.reshape(size, -1, ids.shape[-1]).int()


@dataclass(frozen=True)
class Choice:
    """Which sequence each example gets.

    Args:
        positions: (M,) of the examples that are trained on.
        beams: (M,) the sequence of each; -1 for the reference.
        report: how many were kept, how good and how long the teacher's outputs are.
        fingerprint: tells choices apart by the tokens chosen.
    """

    positions: Tensor
    beams: Tensor
    report: dict[str, JsonValue]
    fingerprint: str


@dataclass(frozen=True)
class Rule:
    """What to choose of an example's sequences; see `SequenceDistillation`."""

    select: Literal["top", "score"] = "top"
    min_score: float | None = None
    rejected: Literal["drop", "reference"] = "drop"
    pad: int = 0


class GeneratedExamples:
    """Training examples that have a teacher's sequences as their targets; a map-style dataset."""

    def __init__(self, train: Split, folder: Path, choice: Choice, as_target: AsTarget) -> None:
        self.train, self.folder, self.choice, self.as_target = train, folder, choice, as_target
        self.cached: CachedValues | None = None

    def __len__(self) -> int:
        return len(self.choice.positions)

    def __getitem__(self, index: int) -> tuple[Inputs, Any]:
        """The example with its sequence, or as it is where it keeps its reference."""
        position, beam = self.choice.positions[index], int(self.choice.beams[index])
        inputs, target = self.train[int(position)]
        if beam < 0:
            return inputs, target
        self.cached = self.cached or CachedValues(self.folder, len(self.train))
        tokens = read(self.cached, position.reshape(1))[0, beam].long()
        with blame(StageError, "the task's as_target"):
            return self.as_target(inputs, tokens[tokens != NOTHING])

    def __getstate__(self) -> dict[str, Any]:
        """Without the mapped file, which a loader's process maps itself."""
        return {**self.__dict__, "cached": None}


def beam_search(module: Any, inputs: Inputs, beams: int, longest: int | None) -> Tensor:
    """The likeliest sequences (N, beams, T) by the own `generate` of an encoder-decoder, as `Beams` gives them.

    Args:
        module: a transformers model.
        inputs: a batch; those of the decoder lend their width alone.
        beams: width of the search, and how many are given.
        longest: tokens at most.
    """
    source = {name: value for name, value in inputs.items() if not name.startswith("decoder_")}
    if longest is None and "decoder_input_ids" in inputs:
        longest = inputs["decoder_input_ids"].shape[1]
    limit = {} if longest is None else {"max_new_tokens": longest}
    with blame(StageError, "the teacher's generate"):
        sequences = module.generate(**source, num_beams=beams, num_return_sequences=beams, do_sample=False, **limit)
    tokens = sequences[:, 1:].reshape(-1, beams, sequences.shape[1] - 1)
    return cut(tokens, module.generation_config.eos_token_id)


def cut(tokens: Tensor, end: int | list[int] | None) -> Tensor:
    """The tokens (..., T) with -1 after the first that is an end."""
    if end is None:
        return tokens
    is_end = torch.isin(tokens, torch.as_tensor(end, device=tokens.device)).int()
    return tokens.masked_fill(is_end.cumsum(-1) - is_end > 0, NOTHING)


def generated(teacher: Teacher, beams: Beams, ctx: Context) -> Path:
    """The folder with the teacher's sequences on the training inputs, made once for all runs.

    Raises:
        StageError: the teacher is no torch model, or gives no tokens.
        Interruption: a stop was asked for; nothing is kept.
    """
    parts: dict[str, JsonValue] = {
        "beams": beams.count,
        "max_tokens": beams.longest,
        "generate": beams.use.model_dump(mode="json") if beams.use else None,
        "code": code_of(beams.use),
        "fingerprint": ctx.train.fingerprint,
        **inputs_key(teacher.config),
    }

    def make(folder: Path) -> None:
        # One more than the tokens: where shapes differ, what is kept is filled up with zeros.
        fill(folder, ctx, lambda inputs: {"tokens": _in_parts(teacher, beams, ctx, inputs) + 1}, None, what=WHAT)

    return ctx.kept(WHAT, teacher.model, parts, make)


def read(cache: CachedValues, index: Tensor) -> Tensor:
    """The sequences (N, beams, T) of these examples, with -1 after their end."""
    return cache(index, 0)["tokens"] - 1


def choose(folder: Path, ctx: Context, rule: Rule) -> Choice:
    """For each example the likeliest sequence or the one that scores best, and whether it scores enough.

    Args:
        folder: with the teacher's sequences.
        ctx: the examples, and the task's score: of ids (N, T), filled up by `rule.pad` to the width of the targets.
        rule: what to choose.

    Raises:
        StageError: the score takes no such ids, or no sequence scores enough.
    """
    digest = hashlib.sha256()
    best, score, top, length = _scored(CachedValues(folder, len(ctx.train)), ctx, rule, digest.update)
    enough = torch.ones_like(score, dtype=torch.bool) if rule.min_score is None else score >= rule.min_score
    if not enough.any():
        problem = f"there are no sequences of the teacher that score {rule.min_score}; their mean is {score.mean():.4f}"
        raise StageError(problem, expected="some", fix="Lower min_score, or train the teacher longer")
    positions = torch.arange(len(best))[enough | torch.tensor(rule.rejected == "reference")]
    beams = best.masked_fill(~enough, NOTHING)[positions]
    digest.update(positions.numpy().tobytes() + beams.numpy().tobytes())
    report: dict[str, JsonValue] = {
        "examples": len(best),
        "kept": int(enough.sum()),
        "mean_score": float(score.mean()),
        "mean_score_of_likeliest": float(top.mean()),
        "mean_tokens": float(length.double().mean()),
    }
    return Choice(positions, beams, report, digest.hexdigest())


def _scored(cache: CachedValues, ctx: Context, rule: Rule, on_chosen: Callable[[bytes], None]) -> list[Tensor]:
    """For each example (N,): which sequence is best, its score, that of the likeliest, and the best one's length.

    The best sequences go to `on_chosen`, batch by batch.
    """
    columns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    with ctx.progress("scoring the teacher's sequences", len(ctx.train)) as advance:
        for batch in ctx.train.loader(BATCH_SIZE):
            if ctx.world.any(ctx.interrupted()):
                raise Interruption("stopped while the teacher's sequences were scored")
            tokens = read(cache, batch.index)
            count = tokens.shape[1] if rule.select == "score" else 1
            scores = torch.stack([_scores(tokens[:, i], batch.targets, ctx, rule.pad) for i in range(count)], dim=1)
            best = scores.argmax(1)  # the first, hence the likeliest, of those that score alike
            chosen = tokens[torch.arange(len(tokens)), best]
            columns.append((best, scores.gather(1, best[:, None])[:, 0], scores[:, 0], (chosen != NOTHING).sum(1)))
            on_chosen(chosen.numpy().tobytes())
            advance(len(batch.index))
    return [torch.cat(column) for column in zip(*columns, strict=True)]


def _in_parts(teacher: Teacher, beams: Beams, ctx: Context, inputs: Inputs) -> Tensor:
    """The sequences of a batch, generated a few examples at a time."""
    if teacher.module is None:
        raise StageError("the teacher is an ONNX file, which cannot generate", expected="a torch model")
    inputs = {name: value.to(teacher.device) for name, value in teacher.config.adapted(inputs).items()}
    sequences: list[Tensor] = []
    for start in range(0, len(next(iter(inputs.values()))), beams.at_once):
        if ctx.interrupted():
            raise Interruption("stopped while the teacher generated")
        with torch.no_grad():
            part = {name: value[start : start + beams.at_once] for name, value in inputs.items()}
            sequences.append(beams(teacher.module, part))
    widest = max(tokens.shape[2] for tokens in sequences)
    return torch.cat([F.pad(tokens, (0, widest - tokens.shape[2]), value=NOTHING) for tokens in sequences])


def _scores(tokens: Tensor, targets: Any, ctx: Context, pad: int) -> Tensor:
    """The task's score (N,) of tokens (N, T)."""
    missing = targets.shape[-1] - tokens.shape[1] if isinstance(targets, Tensor) and targets.ndim == 2 else 0
    ids = F.pad(tokens.long(), (0, max(missing, 0)), value=NOTHING)
    surplus = ids.shape[1] + min(missing, 0)
    if bool((ids[:, surplus:] == NOTHING).all()):  # what is wider than the targets and empty goes
        ids = ids[:, :surplus]
    with blame(StageError, "the task's score of generated tokens"):
        scores: Tensor = ctx.score(ids.masked_fill(ids == NOTHING, pad), targets)
    if not isinstance(scores, Tensor) or scores.shape != (len(ids),):
        expected = f"a tensor of shape {(len(ids),)}"
        raise StageError(f"the task's score of generated tokens is {kind(scores)}", expected=expected)
    return scores.double().cpu()


def split_of(folder: Path, choice: Choice, ctx: Context, as_target: AsTarget) -> Split:
    """The training split with the chosen sequences as targets."""
    dataset = GeneratedExamples(ctx.train, folder, choice, as_target)
    return replace(ctx.train, dataset=dataset, fingerprint=choice.fingerprint)
