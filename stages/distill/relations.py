"""Distillation of relations."""

from typing import ClassVar

from stages.kd.stage import SingleMethod
from stages.kd.terms.relations import RelationMethod, Relations
from stages.kd.terms.term import Term


class RelationDistillation(RelationMethod, SingleMethod):
    """A new, small student that orders things as its teacher does, and which learns the labels.

    Choose `examples` for embeddings, retrieval and metric learning, where distances are what is used;
    `self_attention` for transformers whose numbers of layers, widths or heads differ from the teacher's.

    examples: 25 times the loss of distances and 50 times that of angles, the paper's weights, in batches of 16 or more.
    self_attention: of one layer each, relations among queries, among keys and among values, added up with weight 1;
    relations of a decoder's positions ignore its causal mask.

    Example:
        - {use: distill.relations, student: {use: models.py:SmallNet, width: 16}}

    Reference:
        examples: Park, Kim, Lu and Cho: Relational Knowledge Distillation, 2019, 1904.05068, section 3.2.
        self_attention: Wang et al.: MiniLMv2, 2020, 2012.15828; Wang et al.: MiniLM, 2020, 2002.10957.
    """

    term: ClassVar[type[Term]] = Relations
