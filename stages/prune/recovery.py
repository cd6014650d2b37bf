"""Training after a cut, so that what is left makes up for what is gone."""

from typing import Literal

from pydantic import Field, model_validator

from stages.kd.teacher_config import TeacherConfig, TeacherSettings
from stages.kd.terms.labels import Labels
from stages.kd.terms.logits import Logits
from stages.kd.terms.named import Terms
from stages.kd.terms.term import Term
from stages.trainer.settings import TrainingSettings


class Recovery(TrainingSettings, TeacherSettings):
    """How to train what pruning left, over all steps together."""

    teacher: Literal["incoming", "baseline", "labels"] = Field(
        "incoming", description="distill from the model that came in or the baseline, or train on labels alone"
    )
    temperature: float | None = Field(
        None, gt=0, description="softens the logits of teacher and student; null: 4, multi-label tasks 0.5"
    )
    hard_weight: float = Field(0.3, ge=0, le=1, description="weight of the loss against the labels")
    terms: Terms | None = Field(None, description="what to minimize instead, as in distill.combine")

    @model_validator(mode="after")
    def _fitting(self) -> "Recovery":
        own = [n for n in ("temperature", "hard_weight") if getattr(self, n) != type(self).model_fields[n].default]
        if own and self.terms:
            raise ValueError(f"`{own[0]}` is of no use beside `terms`: set it in a term")
        if self.teacher == "labels" and (self.terms or self.teachers or "temperature" in own):
            problem = "with `teacher: labels` there is nothing to distill: leave out terms, teachers, temperature"
            raise ValueError(problem)
        return self

    def terms_of(self) -> tuple[Term, ...]:
        """What is minimized where there is a teacher."""
        soft = Logits(weight=1 - self.hard_weight, temperature=self.temperature)
        single = (Labels(weight=self.hard_weight), soft)
        return self.terms or tuple(term for term in single if term.weight > 0)

    def teacher_configs(self) -> tuple[TeacherConfig, ...]:
        """The teachers of the settings; none for `teacher: labels`."""
        return () if self.teacher == "labels" else self.teachers or (TeacherConfig(use=self.teacher),)
