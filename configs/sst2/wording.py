"""Other wordings of a text, for a student that is to learn more from its teacher than the texts alone say."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pipeline.base.batches import Inputs
from pipeline.errors import ConfigError, blame
from pipeline.forms.deployed.seq2seq import hush

NEAREST = 15
AT_ONCE = 1024  # rows of the table that are compared with all of it


class Wording:
    """Augmentation of tokens: some become one of the fifteen tokens that mean about the same, some [MASK].

    View 0 is the text itself; its first and its last token always stay.

    Args:
        encoder: a name on the Hugging Face hub, or a folder, of the model whose token vectors say what is near.
        tokenizer: its tokenizer.
        swap, mask: share of the tokens that become another, or [MASK].

    Reference: Tang, Lu, Liu, Mou, Vechtomova and Lin: Distilling Task-Specific Knowledge from BERT into Simple Neural
        Networks, 2019, arXiv:1903.12136, section 3.3; nearest words, fifteen of them, as in Jiao et al.: TinyBERT,
        2019, arXiv:1909.10351, algorithm 1.
    """

    def __init__(self, encoder: str, tokenizer: Any, swap: float, mask: float) -> None:
        self.encoder, self.tokenizer, self.swap, self.mask = encoder, tokenizer, swap, mask

    def __call__(self, inputs: Inputs, seed: int, view: int) -> Inputs:
        """The inputs of one text in that view; the same for the same seed, which is the text's own."""
        if view == 0:
            return inputs
        ids = inputs["input_ids"]
        generator = torch.Generator().manual_seed((seed * 1_000_003 + view) % 2**63)
        drawn = torch.rand(ids.shape, generator=generator)
        drawn[0] = drawn[-1] = 1
        if self.swap:
            chosen = torch.randint(NEAREST, ids.shape, generator=generator)
            ids = torch.where(drawn < self.swap, self.near[ids, chosen], ids)
        hidden = (drawn >= self.swap) & (drawn < self.swap + self.mask)
        return {**inputs, "input_ids": torch.where(hidden, self.tokenizer.mask_token_id, ids)}

    @cached_property
    def near(self) -> Tensor:
        """For each token the fifteen others with the most similar vectors by cosine: (tokens, 15).

        Special and unused tokens are near to none.
        """
        from transformers import AutoModel

        fix = "Let `tokenizer` name a model that has weights too, or set `swap` to 0"
        with blame(ConfigError, "task", fix=fix), hush():
            words = AutoModel.from_pretrained(self.encoder).get_input_embeddings().weight.detach()
        names = self.tokenizer.convert_ids_to_tokens(range(len(words)))
        special = torch.tensor(
            [name in self.tokenizer.all_special_tokens or name.startswith("[unused") for name in names]
        )
        vectors = torch.nn.functional.normalize(words - words.mean(0), dim=1)
        found = []
        for start in range(0, len(vectors), AT_ONCE):
            alike = (vectors[start : start + AT_ONCE] @ vectors.T).masked_fill(special, -2)
            alike[torch.arange(len(alike)), torch.arange(start, start + len(alike))] = -2
            found.append(alike.topk(NEAREST, dim=1).indices)
        return torch.cat(found)
