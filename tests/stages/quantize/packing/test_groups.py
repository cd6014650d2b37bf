import numpy as np

from stages.quantize.packing.codes.digits import LARGE
from stages.quantize.packing.groups import Group, Weight, grouped

RNG = np.random.default_rng(0)


def weight(name: str, low: int, high: int, count: int = 1000, share: float = 1.0, kind: type = np.int8) -> Weight:
    numbers = RNG.integers(low, high, count) * (RNG.random(count) < share)
    return Weight(name, (count,), numbers.astype(kind))


def names(weights: list[Weight], opset: int = 20) -> list[set[str]]:
    return [{one.name for one in group.weights} for group in grouped(weights, opset)]


def test_what_has_the_same_values_is_stored_together() -> None:
    weights = [weight("a", -1, 2), weight("b", -7, 8), weight("c", -1, 2), weight("d", -7, 8)]
    assert sorted(names(weights), key=min) == [{"a", "c"}, {"b", "d"}]


def test_what_saves_less_than_its_decoder_costs_joins_another_or_stays() -> None:
    assert names([weight("tiny", -7, 8, 60)]) == []
    assert names([weight("tiny", -1, 2, 60), weight("large", -7, 8, 9000)]) == [{"tiny", "large"}]


def test_what_pays_for_no_decoder_spoils_no_group_and_many_such_pay_together() -> None:
    head, ternary = weight("head", -127, 128, 32), weight("ternary", -1, 2, 576)
    assert names([head, ternary, weight("small", -1, 2, 64)]) == [{"ternary", "small"}]
    assert names([weight(f"{i}", -1, 2, 100) for i in range(10)]) == [{f"{i}" for i in range(10)}]


def test_full_bytes_stay_as_they_are() -> None:
    assert names([weight("full", -128, 128, 9000), weight("sparse", -128, 128, 9000, share=0.05)]) == [{"sparse"}]


def test_types_and_large_tensors_stay_apart() -> None:
    signed, unsigned = weight("s", 0, 3), weight("u", 0, 3, kind=np.uint8)
    assert sorted(map(min, names([signed, unsigned]))) == ["s", "u"]
    assert len(names([weight("l", -1, 2, LARGE), weight("m", -1, 2, LARGE)])) == 2


def test_a_group_knows_its_values_and_zeros() -> None:
    one, other = (
        Weight(name, (4,), np.array(numbers, np.int8))
        for name, numbers in (("a", [0, 0, -128, 5]), ("b", [5, 127, 0, 1]))
    )
    both = Group.of(one) + Group.of(other)
    assert (both.count, both.filled, both.values.bit_count()) == (8, 5, 5)
