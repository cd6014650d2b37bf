"""Rectangles: no byte is lost, areas are bytes, and those of an encoding lie together."""

from itertools import combinations

import pytest

from pipeline.report.html.plots.treemap import MOST_PARTS, merged, treemap
from pipeline.report.html.views import Area

PARTS = [("a", "int4", 50), ("b", "int8", 30), ("c", "int4", 20), ("graph", "graph", 5), ("empty", "int8", 0)]


def apart(first: Area, second: Area) -> bool:
    across = first.left + first.width <= second.left + 1e-6 or second.left + second.width <= first.left + 1e-6
    down = first.top + first.height <= second.top + 1e-6 or second.top + second.height <= first.top + 1e-6
    return across or down


def test_small_layers_are_merged_and_no_byte_is_lost() -> None:
    layers = [(f"layer{i}", "int8" if i % 2 else "float32", 1000 - i) for i in range(100)]
    assert sum(size for _, _, size in merged(layers)) == sum(size for _, _, size in layers)
    assert len(merged(layers)) == MOST_PARTS + 2


@pytest.mark.parametrize("grouped", [True, False])
def test_areas_are_bytes_and_none_covers_another(grouped: bool) -> None:
    areas = treemap(PARTS, ["int4", "int8", "graph"], grouped)
    for within in [areas, *(area.inside for area in areas if area.inside)]:
        whole = sum(area.size for area in within)
        for area in within:
            assert area.width * area.height / 10_000 == pytest.approx(area.size / whole)
            assert min(area.left, area.top) >= 0
            assert max(area.left + area.width, area.top + area.height) <= 100 + 1e-6
        assert all(apart(*pair) for pair in combinations(within, 2))
    assert sum(area.size for area in areas) == 105


def test_a_group_is_as_large_as_its_parts_and_what_is_alone_has_none() -> None:
    areas = {area.name: area for area in treemap(PARTS, ["int4", "int8", "graph"], grouped=True)}
    assert {name: (area.size, len(area.inside)) for name, area in areas.items()} == {
        "int4": (70, 2), "int8": (30, 1), "graph": (5, 0),
    }  # fmt: skip
    assert {part.color for part in areas["int4"].inside} == {areas["int4"].color} != {areas["int8"].color}
    assert areas["int4"].inside[0].says == "a\nint4\n50 B, 47.6%"


def test_an_encoding_that_is_called_as_a_tensor_keeps_its_bytes() -> None:
    areas = treemap([("int4", "int4", 5), ("x", "int4", 3)], ["int4"], grouped=True)
    assert sum(area.size for area in areas) == 8
    assert sorted(len(area.inside) for area in areas) == [0, 1]


def test_nothing_is_drawn_of_nothing() -> None:
    assert treemap([("a", "int4", 0)], ["int4"]) == []
