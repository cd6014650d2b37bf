import numpy as np
import pytest

from stages.layerwise.compensation import DAMPING, Floats, compensated

RNG = np.random.default_rng(0)
WIDTH = 12


def products_of(width: int = WIDTH) -> Floats:
    """Of inputs that vary together."""
    rows = RNG.normal(size=(200, width)) @ RNG.normal(size=(width, width))
    result: Floats = rows.T @ rows
    return result


def damped(products: Floats) -> Floats:
    result: Floats = products + DAMPING * products.diagonal().mean() * np.eye(len(products))
    return result


def without(count: int, weights: Floats, products: Floats, block: int) -> Floats:
    return compensated(weights, products, lambda i, rest, _: rest[:, i] * (i >= count), block)


@pytest.mark.parametrize("block", [1, 5, 64])
def test_one_removed_weight_is_made_good_as_the_optimal_brain_surgeon_does(block: int) -> None:
    """Hassibi and Stork, 1993: w - w_q / [H^-1]_qq H^-1 e_q."""
    weights, products = RNG.normal(size=(4, WIDTH)), products_of()
    inverse = np.linalg.inv(damped(products))
    expected = weights - weights[:, :1] / inverse[0, 0] * inverse[0]
    np.testing.assert_allclose(without(1, weights, products, block), expected, atol=1e-9)


@pytest.mark.parametrize("block", [2, 4, 64])
def test_what_stays_behind_those_removed_is_the_least_squares_solution(block: int) -> None:
    weights, products = RNG.normal(size=(4, WIDTH)), products_of()
    gone, rest = slice(0, 5), slice(5, WIDTH)
    matrix = damped(products)
    solution = weights[:, rest] + weights[:, gone] @ matrix[gone, rest] @ np.linalg.inv(matrix[rest, rest])
    result = without(5, weights, products, block)
    np.testing.assert_allclose(result[:, rest], solution, atol=1e-9)
    assert not result[:, gone].any()


def test_the_spread_tells_what_a_change_costs() -> None:
    weights, products = RNG.normal(size=(4, WIDTH)), products_of()
    costs = []

    def choose(i: int, rest: Floats, spread: Floats) -> Floats:
        if i == 0:
            costs.append((rest[:, 0] / spread[0]) ** 2)
        return rest[:, i] * (i > 0)

    change = compensated(weights, products, choose) - weights
    np.testing.assert_allclose(np.einsum("ri,ij,rj->r", change, damped(products), change), costs[0], rtol=1e-6)


def test_what_is_not_changed_stays() -> None:
    weights = RNG.normal(size=(4, WIDTH))
    np.testing.assert_array_equal(without(0, weights, products_of(), 4), weights)
    np.testing.assert_array_equal(without(0, weights, np.zeros((WIDTH, WIDTH)), 4), weights)
