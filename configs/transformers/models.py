"""A ViT for 8x8 digits and a DistilBERT for the sentences of configs/text, from configurations alone: no download."""

from transformers import DistilBertConfig, DistilBertForSequenceClassification, ViTConfig, ViTForImageClassification

# Both classes start with weights of 0.02, for a width of 768; narrow networks would start too quiet.
START = 0.5


def vit(hidden: int = 64, layers: int = 4, heads: int = 8, feed_forward: int = 256) -> ViTForImageClassification:
    """An untrained image transformer of 2x2 patches: (N, 1, 8, 8) -> `logits` (N, 10).

    Args:
        hidden: width of the patches' vectors, a multiple of `heads`.
        layers: number of transformer layers.
        heads: attention heads a layer.
        feed_forward: width inside the feed-forward blocks.
    """
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        num_labels=10,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        initializer_range=START * hidden**-0.5,
    )
    return ViTForImageClassification(config)


def distilbert(
    hidden: int = 64, layers: int = 4, heads: int = 8, feed_forward: int = 256, words: int = 80, grades: int = 4
) -> DistilBertForSequenceClassification:
    """An untrained text encoder: `input_ids` and `attention_mask`, both (N, L), L to 64, -> `logits` (N, grades).

    Args:
        hidden, layers, heads, feed_forward: as of `vit`.
        words: in the vocabulary, at least; those of configs/text are fewer.
        grades: classes.
    """
    config = DistilBertConfig(
        vocab_size=words,
        max_position_embeddings=64,
        num_labels=grades,
        dim=hidden,
        n_layers=layers,
        n_heads=heads,
        hidden_dim=feed_forward,
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
        initializer_range=START * hidden**-0.5,
    )
    return DistilBertForSequenceClassification(config)
