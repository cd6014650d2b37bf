"""Distillation of logits."""

from typing import ClassVar

from stages.kd.stage import SingleMethod
from stages.kd.terms.logits import LogitMethod, Logits
from stages.kd.terms.term import Term


class LogitDistillation(LogitMethod, SingleMethod):
    """A new, small student trained on the teacher's softened logits and on the labels.

    Choose it first in a chain: nothing else makes a model ten or more times smaller at so little loss. The student
    may be of any architecture that gives logits of the teacher's shape.

    Example:
        - {use: distill.logits, student: {use: models.py:SmallNet, width: 16}, temperature: 4, epochs: 60}

    Reference:
        kl: Hinton, Vinyals and Dean: Distilling the Knowledge in a Neural Network, 2015, 1503.02531, section 2.
            For each of several labels a binary one: Yang et al.: Multi-Label Knowledge Distillation, 2023, 2308.06453.
        dkd: Zhao, Cui, Song, Qiu and Liang: Decoupled Knowledge Distillation, 2022, 2203.08679, equation 7.
        dist: Huang, You, Wang, Qian and Xu: Knowledge Distillation from A Stronger Teacher, 2022, 2205.10536.
    """

    term: ClassVar[type[Term]] = Logits
