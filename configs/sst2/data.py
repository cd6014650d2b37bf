"""SST-2: sentences and phrases of film reviews, good or bad, with other wordings for distillation."""

from dataclasses import replace

from pipeline.task import Task
from pipeline.tasks.huggingface import huggingface

from .wording import Wording


def task(
    data: str = "stanfordnlp/sst2",
    tokenizer: str = "sentence-transformers/all-MiniLM-L6-v2",
    limit: int | None = None,
    swap: float = 0.0,
    mask: float = 0.0,
    validation: float = 1 / 30,
) -> Task:
    """Single-label classification of texts, from `input_ids` and `attention_mask` (tokens,).

    GLUE's dev part is the test split, for the labels of its own test part are secret; a part of train validates.
    Phrases of train that are dev sentences are left out.

    Args:
        data: a name on the Hugging Face hub, or a folder, with a train and a validation part.
        tokenizer: likewise, that of the teacher.
        limit: examples of each part at most, for small runs.
        swap, mask: share of the tokens that augmentation replaces by near ones, and by [MASK]; others in each view.
            Where both are 0 there is none.
        validation: share of train that is held out.
    """
    found = huggingface.task(
        data=data,
        tokenizer=tokenizer,
        kind="text_classification",
        limit=limit,
        validation=validation,
        test="validation",
        overlap="drop",
        max_length=64,
    )
    return replace(found, augment=Wording(tokenizer, found.tokenizer, swap, mask)) if swap or mask else found
