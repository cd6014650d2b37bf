"""How many tokens a model of `transformers` has positions for, and whether a task's texts are longer."""

from torch import nn

from pipeline.errors import ConfigError
from pipeline.model import Inputs
from pipeline.task import Task
from pipeline.tasks.huggingface.texts import IDS
from pipeline.tasks.huggingface.translation import DECODER_IDS

TABLES = ("position_embeddings", "embed_positions", "positions_embed", "wpe")
"""What the library calls tables with a row a position. Relative and rotary positions, as of T5, have none."""
GROWS = "make_weight"
"""What a table has that is made longer where a text is."""
LIMITS = {IDS: ("max_length", "texts"), DECODER_IDS: ("max_target_length", "translations")}
"""For each input the key of the task that cuts it, and what it holds."""


def check_positions(module: nn.Module, task: Task, example: Inputs) -> None:
    """Nothing. A text that is too long would end in an index out of range, inside of torch.

    Args:
        module: a model for the task.
        task: one of ours says how long its texts may be; of another's the example is looked at.
        example: a small batch of its inputs (N, L).

    Raises:
        ConfigError: texts may have more tokens than the module has positions for.
    """
    longest = getattr(task, "longest", {})
    for name, (key, what) in LIMITS.items():
        seen = [value.shape[1] for given, value in example.items() if given.startswith(name) and value.ndim == 2]
        tokens = max([longest.get(key, 0), *seen])
        known = positions(module, decoder=name == DECODER_IDS if DECODER_IDS in example else None)
        if known is not None and tokens > known:
            raise ConfigError(
                f"the task's {what} have up to {tokens} tokens, and the model has {known} positions",
                fix=f"Set `{key}: {known}` in the task; what is longer is then cut"
                if longest
                else f"Let the task cut its {what}, such as by `truncation=True, max_length={known}` of the tokenizer",
            )


def positions(module: nn.Module, *, decoder: bool | None = None) -> int | None:
    """The tokens that a module's tables of positions have rows for; None where it has no such table.

    Args:
        module: it is looked at, not run.
        decoder: whether the tables of an encoder-decoder's decoder count, or those of its encoder; None for all.
    """
    parts = [part for name, part in module.named_modules() if decoder in (None, "decoder" in name.split("."))]
    return min((_rows(table) for part in parts for table in _tables(part)), default=None)


def _tables(part: nn.Module) -> list[nn.Embedding]:
    """Tables of positions that are its own, not those of its parts, and that it reads."""
    if getattr(part, "position_embedding_type", "") == "rotary":  # ESM makes one all the same
        return []
    tables = [table for name, table in part.named_children() if name in TABLES and isinstance(table, nn.Embedding)]
    return [table for table in tables if not hasattr(table, GROWS)]


def _rows(table: nn.Embedding) -> int:
    """The tokens that it has rows for: RoBERTa's begin after the row that pads, BART's after two that it leaves out."""
    unused = 0 if table.padding_idx is None else table.padding_idx + 1
    return table.num_embeddings - unused - int(getattr(table, "offset", 0))
