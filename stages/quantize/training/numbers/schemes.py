"""Which integers the weights of a layer may take."""

import re
from collections.abc import Collection
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from stages.quantize.rounding.settings import Codebook

Bits = Annotated[int, Field(ge=2, le=8)] | Literal["ternary", "apot5", "apot4", "apot3"]
Scheme = int | str
"""Bits of a uniform grid; `ternary`; `codebook16`, values that are trained; `apot4`, sums of powers of two."""

LARGEST = 127
TERMS = {3: ((0, 4, 2, 1),), 4: ((0, 8, 4, 1), (0, 2)), 5: ((0, 32, 8, 2), (0, 16, 4, 1))}
"""By bits the integers of which one of each row is added: powers of two that double from row to row."""


def scheme_of(setting: int | str | Codebook) -> Scheme:
    """What bits or a codebook in the settings mean."""
    return f"codebook{setting.codebook}" if isinstance(setting, Codebook) else setting


def codebook_size(scheme: Scheme) -> int:
    """How many values a codebook has; 0 for what is none."""
    match = re.fullmatch(r"codebook(\d+)", str(scheme))
    return int(match[1]) if match else 0


def is_uniform(scheme: Scheme) -> bool:
    """Whether all integers of a range may be taken."""
    return isinstance(scheme, int) or scheme == "ternary"


def count(scheme: Scheme) -> int:
    """How many different integers there may be."""
    return codebook_size(scheme) or len(levels(scheme))


def levels(scheme: Scheme) -> Tensor:
    """The integers of a scheme whose values are not trained, in rising order: (K,), float32.

    Raises:
        ValueError: it is a codebook.

    Reference:
        Y. Li, X. Dong, W. Wang, "Additive Powers-of-Two Quantization: An Efficient Non-Uniform Discretization for
        Neural Networks", 2020, arXiv:1909.13144, equation 5, with one bit for the sign.
    """
    if codebook_size(scheme):
        raise ValueError(f"the values of {scheme} are trained")
    if scheme == "ternary":
        return torch.tensor([-1.0, 0.0, 1.0])
    if isinstance(scheme, int):
        half = 2 ** (scheme - 1)
        return torch.arange(max(-half, -LARGEST), half, dtype=torch.float32)
    sums = {0}
    for row in TERMS[int(scheme.removeprefix("apot"))]:
        sums = {value + term for value in sums for term in row}
    return torch.tensor(sorted({*sums, *(-value for value in sums)}), dtype=torch.float32)


def rungs(schemes: Collection[Scheme]) -> list[int]:
    """The bits that weights fall through before all have their schemes."""
    return [bits for bits in (8, 4, 3) if any(is_above(bits, scheme) for scheme in schemes)]


def is_above(bits: int, scheme: Scheme) -> bool:
    """Whether so many bits hold more integers than a scheme has."""
    return bool(2**bits - 1 > count(scheme))
