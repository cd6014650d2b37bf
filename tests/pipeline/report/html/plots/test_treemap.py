"""Rectangles: no byte is lost, and those of an encoding lie together."""

from pipeline.report.html.plots.treemap import MOST_PARTS, merged, treemap


def test_small_layers_are_merged_and_no_byte_is_lost() -> None:
    layers = [(f"layer{i}", "int8" if i % 2 else "float32", 1000 - i) for i in range(100)]
    assert sum(size for _, _, size in merged(layers)) == sum(size for _, _, size in layers)
    assert len(merged(layers)) == MOST_PARTS + 2


def test_a_group_is_as_large_as_its_parts_and_what_is_alone_has_none() -> None:
    parts = [("a", "int4", 50), ("b", "int8", 30), ("c", "int4", 20), ("graph", "graph", 5)]
    tiles = treemap(parts, ["int4", "int8", "graph"], grouped=True)["data"][0]
    sizes = dict(zip(tiles["ids"], tiles["values"], strict=True))
    inside: dict[str, int] = {}
    for parent, size in zip(tiles["parents"], tiles["values"], strict=True):
        inside[parent] = inside.get(parent, 0) + size
    assert inside == {"": 105, "of int4": 70, "of int8": 30}
    assert {key: sizes[key] for key in inside if key} == {"of int4": 70, "of int8": 30}
    colors = dict(zip(tiles["labels"], tiles["marker"]["colors"], strict=True))
    assert colors["a"] == colors["c"] == colors["int4 70 B"] != colors["b"]


def test_an_encoding_that_is_called_as_a_tensor_keeps_its_bytes() -> None:
    tiles = treemap([("int4", "int4", 5), ("x", "int4", 3)], ["int4"], grouped=True)["data"][0]
    assert sum(v for v, parent in zip(tiles["values"], tiles["parents"], strict=True) if not parent) == 8
    assert len(set(tiles["ids"])) == 3
