"""How many tokens a module has positions for, told by its tables of them."""

from torch import nn

TABLES = ("position_embeddings", "embed_positions", "positions_embed", "wpe")
"""What the library calls tables with a row a position. Relative and rotary positions, as of T5, have none."""
GROWS = "make_weight"
"""What a table has that is made longer where a text is."""


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
