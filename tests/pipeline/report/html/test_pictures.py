"""The pictures that are our own: their scale, and that what they say is text."""

import pytest

from pipeline.base.estimate import Estimate
from pipeline.report.html.pictures import curve, interval, square


def test_areas_are_to_scale() -> None:
    def sides(size: float) -> list[float]:
        text = str(square(size, 100, 100, "x"))
        return [float(part.split('"')[1]) for part in text.split("<rect")[1:] for part in [part.split(" width=")[1]]]

    outline, filled = sides(25)
    assert filled == pytest.approx(outline / 2, rel=0.01)


def test_small_pictures_escape_what_they_say(hostile: str) -> None:
    for picture in (square(1, 2, 2, hostile), interval(None, (0, 1), hostile), curve([1, 2], hostile)):
        assert "<script" not in picture
        assert "\"'" not in picture.split("aria-label=")[1].split(">")[0]


def test_an_interval_beyond_its_scale_stays_in_the_picture() -> None:
    assert 'x1="6.0" x2="114.0"' in str(interval(Estimate(value=5, low=-3, high=9), (0.9, 1.1), "x"))
