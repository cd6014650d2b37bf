from itertools import product
from typing import Any

import numpy as np
import pytest

from stages.quantize.rounding.adaptive import adapted
from stages.quantize.rounding.codes import codebook, nearest, uniform
from stages.quantize.rounding.scales import least_squares
from tests.quantizing import RNG


def correlated(width: int, count: int = 300) -> Any:
    rows = RNG.normal(size=(count, width)) @ (RNG.normal(size=(width, width)) + 0.5)
    return rows.T @ rows


def errors(change: Any, products: Any) -> Any:
    return np.einsum("ci,ij,cj->c", change, products, change)


@pytest.mark.parametrize("bits", ["ternary", 2])
def test_it_is_about_the_best_of_all(bits: Any) -> None:
    weights, codes, products = RNG.normal(size=(150, 5)), uniform(bits), correlated(5)
    scale = least_squares(weights[None], codes, (1, 150, 1))[0]
    every = np.array([*product(codes, repeat=5)])
    best = np.min([errors(weights - scale * q, products) for q in every], axis=0)
    ours = errors(weights - scale * adapted(weights, scale, codes, products), products)
    plain = errors(weights - scale * nearest(weights / scale, codes), products)
    assert (ours > best * (1 - 1e-9)).all()
    assert (ours < plain * (1 + 1e-9)).all()
    assert np.mean(ours < best * (1 + 1e-9)) > 0.7
    assert ours.sum() - best.sum() < 0.3 * (plain.sum() - best.sum())


def test_inputs_that_vary_alone_leave_the_nearest() -> None:
    weights, codes = RNG.normal(size=(4, 90)), uniform(3)
    scale = np.full((4, 1), 0.4)
    products = np.diag(RNG.uniform(1, 9, 90))
    np.testing.assert_array_equal(adapted(weights, scale, codes, products), nearest(weights / scale, codes))


def test_more_inputs_than_a_block_and_any_codes() -> None:
    weights, products = RNG.normal(size=(6, 150)), correlated(150)
    codes = codebook(weights / np.abs(weights).max() * 127, 8)
    scale = np.full((6, 1), np.abs(weights).max() / 127)
    integers = adapted(weights, scale, codes, products)
    plain = nearest(weights / scale, codes)
    assert set(np.unique(integers)) <= {*codes.tolist()}
    ours, theirs = (errors(weights - scale * q, products).sum() for q in (integers, plain))
    assert ours < 0.3 * theirs


def test_pruned_weights_stay_zero_and_dead_inputs_do_no_harm() -> None:
    weights, products = RNG.normal(size=(6, 40)), correlated(40)
    weights[:, ::3], products[5], products[:, 5] = 0, 0, 0
    integers = adapted(weights, np.full((6, 1), 0.5), uniform(4), products)
    assert not integers[:, ::3].any()
    np.testing.assert_array_equal(integers[:, 5], nearest(weights[:, 5] / 0.5, uniform(4)))
    adapted(weights, np.full((6, 1), 0.5), uniform(4), np.zeros((40, 40)))
