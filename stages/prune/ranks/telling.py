"""What low-rank factorization says of layers before it runs."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.base.formatting import few
from stages.prune.coupling.telling import counted
from stages.prune.ranks.layers import Layer, Ranks

LOSSY = "with fewer MACs and parameters it keeps less energy"
OTHERS = "the others lose less"


def narrow_at(step: int) -> str:
    """Why a layer stays that no ranks make smaller."""
    multiple = f"no rank that is a multiple of {step}" if step > 1 else "no rank"
    return f"{multiple} has fewer MACs and parameters"


def staying(stay: Mapping[str, Sequence[str]]) -> list[str]:
    """Which layers stay and why, a text for each reason."""
    return [f"{counted(names)} {'stay' if len(names) > 1 else 'stays'} as before: {why}" for why, names in stay.items()]


def told(ranks: Mapping[str, Ranks]) -> str:
    """The layers with their ranks."""
    return _listed(f"`{name}` at rank {', '.join(map(str, numbers))}" for name, numbers in ranks.items())


def possible(layers: Sequence[Layer], step: int) -> str:
    """The layers with the ranks that they may come to have."""
    choices = {layer.name: layer.choices(step) for layer in layers}
    return _listed(f"`{name}` at rank {ranks.min()} to {ranks.max()}" for name, ranks in choices.items())


def _listed(texts: Iterable[str]) -> str:
    names = [*texts]
    return f"{len(names)} layer{'s' * (len(names) > 1)} ({few(names)})"
