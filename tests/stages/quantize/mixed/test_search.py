import pytest

from stages.quantize.mixed.search import smallest


@pytest.mark.parametrize("first", range(8))
def test_it_finds_the_first_that_holds_with_few_tries(first: int) -> None:
    tried: list[int] = []

    def holds(place: int) -> bool:
        tried.append(place)
        return place >= first

    assert smallest(7, holds) == (first if first < 7 else None)
    assert len(tried) == len({*tried}) <= 3
