from itertools import pairwise, product

import numpy as np

from stages.quantize.mixed.front import Choice, front

RNG = np.random.default_rng(1)


def choices(units: int) -> list[list[Choice]]:
    sizes = RNG.integers(100, 2000, units)
    return [
        [Choice(bits, float(size * bits / 8), float(RNG.uniform(0.5, 2) * 4.0**-bits)) for bits in (2, 4, 8)]
        for size in sizes
    ]


def size(mixture: tuple[Choice, ...]) -> float:
    return sum(choice.size for choice in mixture)


def effect(mixture: tuple[Choice, ...]) -> float:
    return sum(choice.effect for choice in mixture)


def test_no_mixture_of_all_is_smaller_and_better() -> None:
    some = choices(6)
    every = [(size(mixture), effect(mixture)) for mixture in product(*some)]
    mixtures = front(some)
    for mixture in mixtures:
        bytes_of, effect_of = size(mixture), effect(mixture)
        assert not [one for one in every if one[0] < bytes_of - 1e-9 and one[1] < effect_of - 1e-15]


def test_it_leads_from_the_smallest_to_the_best_one_unit_at_a_time() -> None:
    some = choices(9)
    mixtures = front(some)
    assert mixtures[0] == tuple(min(unit, key=lambda c: c.size) for unit in some)
    assert mixtures[-1] == tuple(min(unit, key=lambda c: c.effect) for unit in some)
    for one, other in pairwise(mixtures):
        assert sum(a != b for a, b in zip(one, other, strict=True)) == 1
        assert size(one) < size(other)
        assert effect(one) > effect(other)


def test_a_width_that_is_larger_and_no_better_is_left_out() -> None:
    unit = [Choice(2, 2.0, 0.5), Choice(4, 4.0, 0.6), Choice(8, 8.0, 0.1)]
    assert [mixture[0].width for mixture in front([unit])] == [2, 8]
