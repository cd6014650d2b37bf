"""Sequence-level distillation: the teacher's own outputs as targets."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from pipeline.base.use import Reference
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Note, StageError
from pipeline.model import TorchModel
from pipeline.stage import Stage
from stages.kd.generation import Beams, Rule, choose, generated, split_of
from stages.kd.objective import Distillation
from stages.kd.stage import Distilling
from stages.kd.teacher import Teacher
from stages.kd.terms.labels import Labels
from stages.kd.terms.logits import Logits
from stages.kd.terms.term import Term
from stages.trainer.loop import train
from stages.trainer.objective import Supervised

OF_WORDS = ("temperature", "mask", "ignore", "mass")
NO_TARGETS = "Give the task `as_target`: (inputs of an example, tokens) -> the example that has them as its target"
HOW = "Give `generate: file.py:function`, (module, inputs, beams, max_tokens) -> tokens (N, beams, T), -1 after the end"


class SequenceDistillation(Distilling):
    """A new, small student trained on what the teacher generates for the training inputs.

    Choose it for translation, summaries and other sequences, where the teacher's beam outputs are easier to learn than
    references, and a student then needs no wide beam itself. `word_weight` adds the teacher's distribution at each
    token of these outputs; that alone, on the references, is `distill.logits` with `ignore: -100`. Of several teachers
    the first generates, and all give their distributions.

    Example:
        - {use: distill.sequence, student: {shrink_of: teacher, layers: 1}, beams: 4, epochs: 10}

    Reference:
        Kim and Rush: Sequence-Level Knowledge Distillation, 2016, 1606.07947, sections 3.2 (sequences), 3.4 (`select:
        score`) and, for both levels together, 4.2.
    """

    beams: int = Field(4, gt=0, description="width of the search; 1 is greedy")
    max_tokens: int | None = Field(
        None, gt=0, description="longest sequence; null: the width of decoder_input_ids, or as the model is set"
    )
    select: Literal["top", "score"] = Field(
        "top", description="the likeliest sequence, or of all beams the one nearest to the reference by score"
    )
    min_score: float | None = Field(None, description="sequences with a lower score are rejected")
    rejected: Literal["drop", "reference"] = Field(
        "drop", description="with min_score: leave the example out, or keep its reference"
    )
    generate: Reference | None = Field(
        None, description="function(module, inputs, beams, max_tokens) -> tokens, for models without their own"
    )
    at_once: int = Field(32, gt=0, description="examples that are generated together")
    pad: int | None = Field(
        None, description="fills sequences that are scored up to the targets' width; null: the model's own"
    )
    word_weight: float = Field(
        0.0, ge=0, le=1, description="weight of the teacher's distributions; the sequences have the rest"
    )
    temperature: float = Field(2.0, gt=0, description="with word_weight: softens the distributions")
    mask: str | None = Field(None, description="with word_weight: the input that is 0 at padding")
    ignore: int | None = Field(-100, description="with word_weight: the target at positions that do not count")
    mass: float | None = Field(
        None, gt=0, le=1, description="with word_weight: keep the largest classes up to this mass"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "SequenceDistillation":
        overrides = [name for name in OF_WORDS if getattr(self, name) != type(self).model_fields[name].default]
        if overrides and not self.word_weight:
            raise ValueError(f"`{overrides[0]}` is of no use without `word_weight`")
        if len(self.teachers) > 1 and not self.word_weight:
            raise ValueError("several teachers are of no use without `word_weight`: the first alone generates")
        if self.select == "score" and self.beams == 1:
            raise ValueError("`select: score` chooses among several `beams`")
        if self.rejected == "reference" and self.min_score is None:
            raise ValueError("`rejected` needs `min_score`")
        return self

    def terms_of(self) -> tuple[Term, ...]:
        """The sequences as labels and the words, each where its weight is above zero."""
        own = {name: getattr(self, name) for name in OF_WORDS}
        words = [Logits(weight=self.word_weight, **own)] if self.word_weight else []
        labels = [Labels(weight=1 - self.word_weight)] if self.word_weight < 1 else []
        return (*labels, *words)

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuses a task without `as_target` and a teacher that cannot generate, beside what all distilling does."""
        if not preview.as_target:
            raise ConfigError("the task has no `as_target`", fix=NO_TARGETS)
        return super().check(before, preview)

    def train_student(self, student: TorchModel, teachers: Sequence[Teacher], ctx: Context, name: str) -> TorchModel:
        """The student after one training on the teacher's sequences; it takes as many steps as on the references."""
        if ctx.as_target is None:
            raise StageError("the task has no `as_target`", fix=NO_TARGETS)
        folder = generated(teachers[0], Beams(self.beams, self.max_tokens, self.at_once, self.generate), ctx)
        choice = choose(folder, ctx, Rule(self.select, self.min_score, self.rejected, self._pad(teachers[0].look())))
        ctx.report("sequences", choice.report)
        own = replace(ctx, task=replace(ctx.task, train=split_of(folder, choice, ctx, ctx.as_target)))
        longer = self.model_copy(update={"epochs": round(self.epochs * len(ctx.train) / len(own.train))})
        if not self.word_weight:
            return train(student, Supervised(own), longer, own, name)
        trained_student = train(student, Distillation(self.terms_of(), teachers, student, self, own), longer, own, name)
        for teacher in teachers:
            teacher.cached = None  # of the sequences: nobody is to take it for what is said of the references
        return trained_student

    def foresee(self, student: TorchModel, teachers: Sequence[Teacher], preview: Preview) -> Iterator[str]:
        """Refuses a teacher that cannot generate; says how much it will."""
        if not isinstance(teachers[0].model, TorchModel):
            raise ConfigError("the teacher is an ONNX file, which cannot generate", expected="a torch model")
        module = teachers[0].look()
        if self.generate:
            self.generate.resolve()
        elif not callable(getattr(module, "generate", None)):
            raise ConfigError(f"the teacher, {type(module).__name__}, has no `generate`", fix=HOW)
        elif not getattr(getattr(module, "config", None), "is_encoder_decoder", False):
            problem = "the teacher is no encoder-decoder: where in its inputs the prompt ends is the task's to know"
            raise ConfigError(problem, fix=HOW)
        self._pad(module)
        examples = len(preview.train)
        yield Note(f"the teacher generates once for each of {examples:,} examples, with beams of width {self.beams}")
        if preview.train.varies:
            yield "the teacher's sequences are of one reading of the examples, which are other ones when they train"
        if self.word_weight:
            yield from super().foresee(student, teachers, preview)

    def _pad(self, module: nn.Module) -> int:
        """What fills the sequences that are scored."""
        pad = self.pad if self.pad is not None else getattr(getattr(module, "config", None), "pad_token_id", None)
        if not isinstance(pad, int):
            raise ConfigError("the teacher has no pad token", where="pad", fix="Say which number the task pads with")
        return pad
