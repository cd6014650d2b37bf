import pytest
from pydantic import TypeAdapter, ValidationError

from stages.quantize.rounding.settings import Codebook
from stages.quantize.training.numbers.schemes import Bits, codebook_size, count, is_above, levels, rungs, scheme_of


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_integers_of_a_uniform_grid(bits: int) -> None:
    low = max(-(2 ** (bits - 1)), -127)
    assert levels(bits).tolist() == list(range(low, 2 ** (bits - 1)))


def test_ternary_has_three() -> None:
    assert levels("ternary").tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("bits", "terms"), [(3, [[0, 1, 2, 4]]), (5, [[0, 2**0, 2**-2, 2**-4], [0, 2**-1, 2**-3, 2**-5]])]
)
def test_additive_powers_of_two_are_the_sums_of_equation_5(bits: int, terms: list[list[float]]) -> None:
    sums = {0.0}
    for term in terms:
        sums = {a + b for a in sums for b in term}
    ours = levels(f"apot{bits}").tolist()
    assert ours == sorted({*ours} | {-value for value in ours})
    scale = max(sums) / max(ours)
    assert sorted(sums) == [value * scale for value in ours if value >= 0]
    assert len(ours) == 2**bits - 1


def test_a_codebook_is_called_by_its_size() -> None:
    assert scheme_of(Codebook(codebook=12)) == "codebook12"
    assert codebook_size("codebook12") == count("codebook12") == 12
    assert scheme_of(4) == 4
    with pytest.raises(ValueError, match="trained"):
        levels("codebook12")


def test_bits_fall_to_what_the_least_layer_has() -> None:
    assert rungs([8, 8]) == []
    assert rungs([8, 4]) == [8]
    assert rungs(["codebook16"]) == [8]
    assert rungs([2]) == rungs(["ternary", 8]) == [8, 4, 3]
    assert is_above(4, 3)
    assert not is_above(4, "apot4")


@pytest.mark.parametrize("wrong", [1, 9, 0, "binary", "codebook16", 4.5])
def test_other_bits_are_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Bits).validate_python(wrong)
