"""SST-2: sentences and phrases of film reviews, good or bad, with words masked at random for distillation."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from pipeline.model import Inputs
from pipeline.task import Task
from pipeline.tasks import huggingface


def task(
    data: str = "stanfordnlp/sst2",
    tokenizer: str = "sentence-transformers/all-MiniLM-L6-v2",
    limit: int | None = None,
    mask: float = 0.0,
) -> Task:
    """Single-label classification of texts, from `input_ids` and `attention_mask` (tokens,).

    GLUE's dev part is the test split, for the labels of its own test part are secret; a thirtieth of train validates.
    Phrases of train that are dev sentences are left out.

    Args:
        data: a name on the Hugging Face hub, or a folder, with a train and a validation part.
        tokenizer: likewise, that of the teacher.
        limit: examples of each part at most, for small runs.
        mask: share of the tokens that augmentation masks, others in each view. Where it is 0 there is none.
    """
    found = huggingface.task(
        data=data,
        tokenizer=tokenizer,
        kind="text_classification",
        limit=limit,
        validation=1 / 30,
        test="validation",
        overlap="drop",
        max_length=64,
    )
    return replace(found, augment=partial(masked, mask, found.tokenizer)) if mask else found


def masked(share: float, tokenizer: Any, inputs: Inputs, seed: int, view: int) -> Inputs:
    """The text with some of its words as [MASK]; view 0 is the text itself.

    Args:
        share: of the tokens that are masked, each by itself.
        tokenizer: whose first and last tokens around a text stay.
        inputs: one example's.
        seed: the example's own.
        view: every view is another.

    Reference: Tang, Lu, Liu, Mou, Vechtomova and Lin: Distilling Task-Specific Knowledge from BERT into Simple Neural
        Networks, 2019, arXiv:1903.12136, section 3.3.
    """
    if view == 0:
        return inputs
    generator = torch.Generator().manual_seed((seed * 1_000_003 + view) % 2**63)
    ids = inputs["input_ids"]
    chosen = torch.rand(ids.shape, generator=generator) < share
    chosen[0] = chosen[-1] = False
    return {**inputs, "input_ids": torch.where(chosen, tokenizer.mask_token_id, ids)}
