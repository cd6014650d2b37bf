"""A small BERT for the sentences beside it; teacher and student differ in depth and width alone."""

from transformers import BertConfig, BertForSequenceClassification

from .data import GRADES, PAD, VOCABULARY


def encoder(
    hidden: int = 64,
    layers: int = 4,
    heads: int = 4,
    feed_forward: int = 128,
    dropout: float = 0.0,
    positions: int = 64,
) -> BertForSequenceClassification:
    """An untrained encoder: `input_ids` and `attention_mask`, both (N, L), -> `logits` (N, 4).

    Args:
        hidden: width of the tokens' vectors, a multiple of `heads`.
        layers: number of transformer layers.
        heads: attention heads a layer.
        feed_forward: width inside the feed-forward blocks.
        dropout: share of activations that training drops, 0 to below 1.
        positions: the largest L.
    """
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=positions,
        pad_token_id=PAD,
        num_labels=len(GRADES),
        initializer_range=hidden**-0.5 / 2,  # BERT's 0.02 is for a width of 768; a narrow net would start too quiet
        attn_implementation="eager",  # exports to plain matrix products and softmax
    )
    return BertForSequenceClassification(config)
