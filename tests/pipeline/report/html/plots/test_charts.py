"""Axes and limits of the charts."""

from pipeline.report.html.plots.charts import Axis, Point, scatter


def test_limits_of_the_budget_are_lines() -> None:
    points = [Point("a", (10.0,) * 3, (0.9, 0.8, 1.0), "step")]
    shapes = scatter(points, Axis("x", limit=20), Axis("y", limit=0.95))["layout"]["shapes"]
    assert [(s.get("x0"), s.get("y0")) for s in shapes] == [(20, 0), (0, 0.95)]


def test_points_at_one_place_and_at_zero_can_be_drawn() -> None:
    points = [Point(name, (0.0,) * 3, (1.0,) * 3, "step") for name in "ab"]
    low, high = scatter(points, Axis("x", is_count=True), Axis("y"))["layout"]["xaxis"]["range"]
    assert low < 0 < high
