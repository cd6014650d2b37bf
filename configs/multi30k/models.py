"""A small encoder-decoder for the captions beside it; teacher and student differ in depth and width alone."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import MarianConfig, MarianMTModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from .data import LENGTH
from .words import END, PAD, START, WORDS

TOGETHER = 16  # examples of like length

CACHES = ("past_key_values", "cache")  # what versions of transformers call it


class Translator(MarianMTModel):
    """A Marian model whose forward gives `logits` alone, zero at the decoder's padding, or as `generate` wants it."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        **rest: Any,
    ) -> Seq2SeqLMOutput:
        """(N, S) ids, (N, S) mask and (N, T) ids -> `logits` (N, T, words)."""
        if input_ids is None or attention_mask is None or decoder_input_ids is None or rest:
            found = super().forward(input_ids, attention_mask, decoder_input_ids, **rest)
            return Seq2SeqLMOutput(**{name: value for name, value in found.items() if name in ("logits", *CACHES)})
        if torch.compiler.is_exporting():
            hidden = self._decoded(input_ids, attention_mask, decoder_input_ids)
            return Seq2SeqLMOutput(logits=self.lm_head(hidden * (decoder_input_ids != PAD).unsqueeze(-1)))
        return Seq2SeqLMOutput(logits=self._trimmed(input_ids, attention_mask, decoder_input_ids))

    def _trimmed(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
        """The logits, with little work for padding: rows of like length run together, cut to the longest of them."""
        written = decoder_input_ids != PAD
        lengths = torch.maximum(_lengths(attention_mask != 0), _lengths(written))
        hidden = self.lm_head.weight.new_zeros(*decoder_input_ids.shape, self.lm_head.in_features)
        for rows in lengths.argsort(stable=True).split(TOGETHER):
            read, wrote = (int(_lengths(mask[rows]).max().clamp_min(1)) for mask in (attention_mask != 0, written))
            given = input_ids[rows, :read], attention_mask[rows, :read], decoder_input_ids[rows, :wrote]
            hidden = hidden.index_copy(0, rows, F.pad(self._decoded(*given), (0, 0, 0, hidden.shape[1] - wrote)))
        logits = hidden.new_zeros(*written.shape, self.lm_head.out_features)
        logits[written] = self.lm_head(hidden[written])
        return logits

    def _decoded(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
        # The library's own default is left out while a graph is traced, and its mask is then one too wide.
        seen = torch.ones_like(decoder_input_ids)
        hidden: Tensor = self.model(
            input_ids, attention_mask, decoder_input_ids, decoder_attention_mask=seen
        ).last_hidden_state
        return hidden


def _lengths(mask: Tensor) -> Tensor:
    """Of each row (N, T) the columns up to its last that is true, (N,)."""
    return (torch.arange(1, mask.shape[1] + 1, device=mask.device) * mask).amax(1)


def translator(
    hidden: int = 192,
    layers: int = 3,
    heads: int = 4,
    feed_forward: int = 768,
    decoder_layers: int | None = None,
    dropout: float = 0.2,
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
        vocab_size=WORDS,
        d_model=hidden,
        encoder_layers=layers,
        decoder_layers=decoder_layers or layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=feed_forward,
        decoder_ffn_dim=feed_forward,
        dropout=dropout,
        max_position_embeddings=LENGTH + 1,
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
    model.generation_config.early_stopping = True
    return model
