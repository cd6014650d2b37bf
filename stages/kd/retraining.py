"""Training of a model that was changed, so that it does again what it did: against a teacher, or on labels."""

from collections.abc import Iterable, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.context import Context, Preview
from pipeline.errors import ConfigError
from pipeline.model import TorchModel
from stages.kd.checks import expect_kind, misfits
from stages.kd.objective import Distillation
from stages.kd.teacher import Teacher, open_teachers
from stages.kd.teacher_config import TeacherConfig, TeacherSettings
from stages.kd.terms.labels import Labels
from stages.kd.terms.logits import Logits
from stages.kd.terms.named import Terms
from stages.kd.terms.term import Term
from stages.trainer.loop import train
from stages.trainer.objective import Objective, Supervised
from stages.trainer.settings import TrainingSettings

OF_TEACHERS = ("temperature", "hard_weight", "terms", *TeacherSettings.model_fields)
"""Settings that are of no use on labels alone."""


class Retraining(TrainingSettings, TeacherSettings):
    """How to train it, and who teaches."""

    teacher: Literal["incoming", "baseline", "labels"] = Field(
        "incoming", description="distill from the model that came in or the baseline, or train on labels alone"
    )
    temperature: float | None = Field(
        None, gt=0, description="softens the logits of teacher and student; null: 4, multi-label tasks 0.5"
    )
    hard_weight: float = Field(0.3, ge=0, le=1, description="weight of the loss against the labels")
    terms: Terms | None = Field(None, description="what to minimize instead, as in distill.combine")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        own = [n for n in OF_TEACHERS if getattr(self, n) != type(self).model_fields[n].default]
        if self.terms and (idle := [name for name in own if name in ("temperature", "hard_weight")]):
            raise ValueError(f"`{idle[0]}` is of no use beside `terms`: set it in a term")
        if self.teachers and self.teacher != "incoming":
            raise ValueError("`teacher` is of no use beside `teachers`: leave one of them out")
        if self.teacher == "labels" and own:
            raise ValueError(f"with `teacher: labels` there is nothing to distill: leave out {', '.join(own)}")
        return self

    def terms_of(self) -> tuple[Term, ...]:
        """What is minimized where there is a teacher."""
        soft = Logits(weight=1 - self.hard_weight, temperature=self.temperature)
        single = (Labels(weight=self.hard_weight), soft)
        return self.terms or tuple(term for term in single if term.weight > 0)

    def teacher_configs(self) -> tuple[TeacherConfig, ...]:
        """The teachers of the settings; none for `teacher: labels`."""
        return () if self.teacher == "labels" else self.teachers or (TeacherConfig(use=self.teacher),)

    def open(self, incoming: TorchModel, ctx: Context) -> list[Teacher]:
        """The teachers; none for `teacher: labels`."""
        return open_teachers(self.teacher_configs(), self, incoming, ctx) if self.teacher != "labels" else []

    def objective(self, teachers: Sequence[Teacher], model: TorchModel, ctx: Context) -> Objective:
        """What is minimized when a model is trained."""
        return Distillation(self.terms_of(), teachers, model, self, ctx) if teachers else Supervised(ctx)

    def retrained(
        self, teachers: Sequence[Teacher], model: TorchModel, ctx: Context, name: str, step: int = 1, steps: int = 1
    ) -> TorchModel:
        """The model after a step's share of the training; where the epochs do not divide, later steps get more."""
        epochs = self.epochs * step // steps - self.epochs * (step - 1) // steps
        settings = self.model_copy(update={"epochs": epochs})
        return train(model, self.objective(teachers, model, ctx), settings, ctx, name)

    def check_teachers(self, preview: Preview, *, known: bool, name: str = "") -> Iterable[str]:
        """What is suspicious about the teachers and terms, as far as the model is known; refuses what cannot work.

        Args:
            preview: of the stage.
            known: whether its model is the one that comes in.
            name: of the setting that this is; empty for the stage's own.
        """
        if self.teacher == "labels":
            return
        if not preview.logits and self.terms is None:
            fix = f"Set `{name}: {{teacher: labels}}`" if name else "Set `teacher: labels`"
            raise ConfigError("the task's predictions are no logits to distill", fix=fix)
        if self.teacher == "baseline" and preview.in_baseline:
            raise ConfigError("there is no baseline yet", fix="Use `teacher: incoming` or `teacher: labels`")
        expect_kind(self.terms_of(), preview)
        if known and isinstance(preview.model, TorchModel):
            model, example = preview.model, preview.model.example
            pairs = ((config, config.open(model, model, example)) for config in self.teacher_configs())
            teachers = [Teacher(config, own, output=preview.output) for config, own in pairs]
            yield from misfits(self.terms_of(), preview.model, teachers, preview)
