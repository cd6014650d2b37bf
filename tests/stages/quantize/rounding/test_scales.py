from typing import Any

import numpy as np
import pytest

from stages.quantize.rounding.codes import nearest, uniform
from stages.quantize.rounding.scales import fitted, largest, least_range, least_squares, with_codebook
from tests.quantizing import RNG


def errors(weights: Any, scale: Any, codes: Any) -> Any:
    return ((weights - scale * nearest(weights / scale, codes)) ** 2).sum(2, keepdims=True)


@pytest.mark.parametrize("bits", [4, 3, 2, "ternary"])
def test_the_scale_of_least_squares_is_that_of_a_search(bits: Any) -> None:
    weights, codes = RNG.normal(size=(1, 6, 150)), uniform(bits)
    widest = np.abs(weights).max(2, keepdims=True)
    best = np.min([errors(weights, widest * f, codes) for f in np.linspace(0.02, 1.3, 4000)], axis=0)
    scale = least_squares(weights, codes, (1, 6, 1))
    assert (errors(weights, scale, codes) < 1.01 * best).all()
    assert (errors(weights, scale, codes) < errors(weights, widest / -codes[0], codes)).all()


def test_channels_that_share_a_scale_have_the_best_for_all() -> None:
    weights, codes = RNG.normal(size=(2, 3, 50)), uniform(3)
    scale = least_squares(weights, codes, (1, 1, 1))
    best = min(errors(weights, s, codes).sum() for s in np.linspace(0.05, 2, 3000))
    assert scale.shape == (1, 1, 1)
    assert errors(weights, scale, codes).sum() < 1.01 * best


def test_the_scale_for_given_integers_is_in_closed_form() -> None:
    weights, old = RNG.normal(size=(1, 4, 30)), np.ones((1, 4, 1))
    integers = np.rint(weights * 2).astype(np.int8)
    rows = RNG.normal(size=(80, 30))
    for factor, products in ((np.eye(30), None), (rows, (rows.T @ rows)[None])):
        expected = [
            np.linalg.lstsq((factor @ q)[:, None], factor @ w)[0][0]
            for w, q in zip(weights[0], integers[0], strict=True)
        ]
        np.testing.assert_allclose(fitted(weights, integers, old, products).ravel(), expected, rtol=1e-3)


def test_scales_fit_into_16_bits_or_stay() -> None:
    weights = RNG.normal(size=(1, 5, 40))
    scale = least_squares(weights, uniform(4), (1, 5, 1))
    assert (scale.astype(np.float16) == scale).all()
    tiny = least_squares(weights * 1e-7, uniform(4), (1, 5, 1))
    np.testing.assert_allclose(tiny, scale * 1e-7, rtol=1e-2)
    assert (errors(weights * 1e-7, tiny, uniform(4)) < 1e-14 * 1.01 * errors(weights, scale, uniform(4))).all()


def test_channels_of_zeros_have_a_scale() -> None:
    weights = np.zeros((1, 2, 3))
    assert largest(weights, 127, (1, 2, 1)).tolist() == [[[1.0], [1.0]]]
    assert (least_squares(weights, uniform(4), (1, 2, 1)) > 0).all()
    codes, scale = with_codebook(weights, 4, 127, (1, 2, 1))
    assert (nearest(weights / scale, codes) == 0).all()


def test_a_codebook_is_better_than_as_many_integers() -> None:
    weights = RNG.standard_t(4, size=(1, 8, 400))
    codes, scale = with_codebook(weights, 16, 127, (1, 8, 1))
    uniform_scale = least_squares(weights, uniform(4), (1, 8, 1))
    assert len(codes) == 16
    assert errors(weights, scale, codes).sum() < 0.9 * errors(weights, uniform_scale, uniform(4)).sum()


@pytest.mark.parametrize("kind", ["positive", "both", "negative", "lopsided"])
def test_the_range_of_least_error_is_that_of_a_search(kind: str) -> None:
    values = RNG.standard_t(3, 20_000)
    values = {"positive": np.maximum(values, 0), "both": values, "negative": -np.abs(values)}.get(
        kind, values * 0.1 + np.abs(values)
    )
    counts, edges = np.histogram(values, 4096)

    def error(low: float, high: float, levels: int = 16) -> float:
        step = (high - low) / (levels - 1)
        zero = round(-low / step)
        rounded = (np.clip(np.rint(values / step) + zero, 0, levels - 1) - zero) * step
        return float(((values - rounded) ** 2).sum())

    ends = least_range(counts, edges, values.min(), values.max(), levels=16)
    low, high = min(values.min(), 0), max(values.max(), 0)
    shares = np.linspace(0.02, 1, 50)
    best = min(error(low * a, high * b) for a in shares for b in shares if low * a < high * b)
    assert low <= ends[0] <= 0 <= ends[1] <= high
    assert error(*ends) < 1.05 * best
    assert error(*ends) < 0.8 * error(low, high)


def test_the_range_of_a_constant() -> None:
    assert least_range(np.array([5.0]), np.array([-0.5, 0.5]), 0, 0) == (0, 0)
    counts, edges = np.histogram(np.full(10, 3.0), 8, range=(-3, 3))
    assert least_range(counts, edges, 3, 3)[1] == pytest.approx(3, rel=0.2)
