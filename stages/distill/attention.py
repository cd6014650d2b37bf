"""Distillation of attention."""

from typing import ClassVar

from stages.kd.stage import SingleMethod
from stages.kd.terms.attention import AttentionMethod, AttentionTerm
from stages.kd.terms.term import Term


class AttentionDistillation(AttentionMethod, SingleMethod):
    """A new, small student that looks where its teacher looks, and which learns the labels.

    Choose `maps` for convolutional networks whose widths differ, since it needs no trained part between them;
    `transformer` for fewer layers of the same kind with as many heads, and then logits after it (`distill.combine`).

    maps: map_weight times the mean squared difference of normalized activation maps, added up over the pairs; the
    weight of 1000 is the authors'. transformer: mean squared errors of attention scores and hidden states of each pair
    of layers and of the embeddings, added up with weight 1 each; a linear layer is trained where widths differ. Of
    decoders, pairs of positions that a causal mask hides are compared, too.

    Example:
        - use: distill.attention
          student: {shrink_of: teacher, layers: 2}
          kind: transformer
          mask: attention_mask

    Reference:
        maps: Zagoruyko and Komodakis: Paying More Attention to Attention, 2017, 1612.03928, equation 2.
        transformer: Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2020, 1909.10351,
        equations 7 to 9.
    """

    term: ClassVar[type[Term]] = AttentionTerm
