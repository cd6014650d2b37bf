"""A small encoder-decoder for the numbers beside it; teacher and student differ in depth and width alone."""

from typing import Any

import torch
from torch import Tensor
from transformers import MarianConfig, MarianMTModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from .data import END, PAD, SOURCE, START, TARGET, VOCABULARY

CACHES = ("past_key_values", "cache")  # what versions of transformers call it


class Translator(MarianMTModel):
    """A Marian model whose forward gives `logits` alone, and the cache where `generate` asks for one."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        **rest: Any,
    ) -> Seq2SeqLMOutput:
        """(N, S) ids, (N, S) mask and (N, T) ids -> `logits` (N, T, words)."""
        if decoder_input_ids is not None and all(rest.get(name) is None for name in CACHES):
            # The library's own default is left out while a graph is traced, and its mask is then one too wide.
            rest.setdefault("decoder_attention_mask", torch.ones_like(decoder_input_ids))
        found = super().forward(input_ids, attention_mask, decoder_input_ids, **rest)
        return Seq2SeqLMOutput(**{name: value for name, value in found.items() if name in ("logits", *CACHES)})


def translator(
    hidden: int = 128,
    layers: int = 3,
    heads: int = 4,
    feed_forward: int = 256,
    decoder_layers: int | None = None,
    dropout: float = 0.1,
) -> Translator:
    """An untrained encoder-decoder that `generate` works with.

    Args:
        hidden: width of the tokens' vectors, a multiple of `heads`.
        layers: transformer layers of the encoder, and of the decoder unless `decoder_layers` says otherwise.
        heads: attention heads a layer.
        feed_forward: width inside the feed-forward blocks.
        decoder_layers: transformer layers of the decoder.
        dropout: share of activations that training drops, 0 to below 1.
    """
    config = MarianConfig(
        vocab_size=len(VOCABULARY),
        d_model=hidden,
        encoder_layers=layers,
        decoder_layers=decoder_layers or layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=feed_forward,
        decoder_ffn_dim=feed_forward,
        dropout=dropout,
        max_position_embeddings=max(SOURCE, TARGET) + 1,
        scale_embedding=True,
        init_std=hidden**-0.5,
        pad_token_id=PAD,
        decoder_start_token_id=START,
        eos_token_id=END,
        forced_eos_token_id=None,
        use_cache=False,  # an exported graph has none
        attn_implementation="eager",  # exports to plain matrix products and softmax
    )
    model = Translator(config)
    model.generation_config.use_cache = True
    return model
