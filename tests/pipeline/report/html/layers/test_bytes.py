"""Where the bytes of a packed file are."""

from pipeline.records.record import Record
from pipeline.report.html.layers.bytes import bytes_by_encoding
from tests import records


def test_the_areas_are_the_file_and_the_table_has_every_tensor(chained: Record) -> None:
    figure, sums = bytes_by_encoding(chained)
    assert figure
    assert sums
    after = records.packing()["bytes"]["after"]
    assert sum(area.size for area in figure.areas) == after
    assert [row[0] for row in sums.rows] == ["float32", "int4", "codebook", "graph"]
    assert len(figure.table.rows) == 12
    assert figure.table.rows[0][0] == "layers.2.weight"
    assert "Loading takes 9.14 ms, before 3.21 ms. Memory at its peak is 92.0 MB, before 80.0 MB." in figure.caption


def test_nothing_is_drawn_of_what_is_not_packed(chained: Record) -> None:
    chained.stages[4].reports["packing"] = records.packing(count=0, graph_bytes=0, bytes={"before": 9, "after": 0})
    assert bytes_by_encoding(chained) == (None, None)
    del chained.stages[4].reports["packing"]
    assert bytes_by_encoding(chained) == (None, None)
