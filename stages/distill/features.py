"""Distillation of hidden layers."""

from typing import ClassVar

from stages.kd.stage import SingleMethod
from stages.kd.terms.features import FeatureMethod, Features
from stages.kd.terms.term import Term


class FeatureDistillation(FeatureMethod, SingleMethod):
    """A new, small student whose hidden layers give what the teacher's give, and which learns the labels.

    Choose it where the outputs say little: few classes, regression, embeddings; or for deep, thin students. For
    classes it is better as the first phase of `distill.combine`, with logits after it.

    Where channels differ, a linear layer or 1x1 convolution is trained between the two and left out of the student;
    where they are as many, nothing is between them. Where spatial sizes differ, the larger is averaged down.

    Example:
        - {use: distill.features, student: {use: models.py:SmallNet, width: 16}, layers: [[blocks.0, blocks.2]]}

    Reference:
        Romero, Ballas, Kahou, Chassang, Gatta and Bengio: FitNets: Hints for Thin Deep Nets, 2015, 1412.6550,
        equation 3.
    """

    term: ClassVar[type[Term]] = Features
