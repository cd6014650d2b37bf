"""Distillation by any sum of terms."""

from pydantic import Field

from stages.kd.stage import Distilling
from stages.kd.terms.named import Terms
from stages.kd.terms.term import Term


class CombinedDistillation(Distilling):
    """A new, small student trained on a sum of terms, each with its weight and its time in the training.

    Choose it for recipes of several phases or several kinds of knowledge: hints first and logits then (FitNets), or
    TinyBERT's layers first and predictions then. A term is named like a stage: `logits`, `features`, `attention`,
    `relations`, `labels`, or a file of yours that defines one Term.

    Example:
        - use: distill.combine
          student: {use: models.py:SmallNet, width: 16}
          terms:
            - {use: features, layers: [[blocks.0, blocks.2]], end: 0.5}
            - {use: logits, temperature: 4, start: 0.5}
            - {use: labels, weight: 0.3, start: 0.5}

    Reference:
        Romero et al.: FitNets, 2015, 1412.6550, algorithm 1. Jiao et al.: TinyBERT, 2020, 1909.10351, section 3.2.
    """

    terms: Terms = Field(description="what is minimized: a list of {use: TERM, weight: 1, start: 0, end: 1}")

    def terms_of(self) -> tuple[Term, ...]:
        """The terms as they are listed."""
        return self.terms
