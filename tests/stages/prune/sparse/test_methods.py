"""Wanda and SparseGPT against the plainest way to compute them."""

from itertools import product

import numpy as np
import pytest

from stages.layerwise.compensation import DAMPING
from stages.prune.sparse.masks import Amount, Floats, Pattern
from stages.prune.sparse.methods import WINDOW, by_magnitude, by_sparsegpt, by_wanda, pruned


def layer(rows: int, width: int, groups: int = 1, seed: int = 0) -> tuple[Floats, Floats]:
    """Weights, and products of inputs that vary together and much or little."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(groups, 400, width)) @ rng.normal(size=(groups, width, width))
    inputs *= rng.uniform(0.1, 3, (groups, 1, width))
    return rng.normal(size=(groups, rows, width)), inputs.swapaxes(1, 2) @ inputs


def error(weights: Floats, changed: Floats, products: Floats) -> float:
    change = changed - weights
    return float(np.einsum("gri,gij,grj->", change, products, change))


def reference(weights: Floats, products: Floats, amount: Amount) -> Floats:
    """Algorithm 1 without blocks or factors: for each input the inverse of what is left of H, and eq. 3 of OBS."""
    width = len(products)
    matrix = products + DAMPING * products.diagonal().mean() * np.eye(width)
    inverses = [np.linalg.inv(matrix[i:, i:]) for i in range(width)]
    rest, zeros = weights.copy(), np.zeros(weights.shape, bool)
    window = amount.of if isinstance(amount, Pattern) else WINDOW
    for i in range(width):
        if i % window == 0:
            end = min(i + window, width)
            scores = rest[:, i:end] ** 2 / np.array([inverses[j][0, 0] for j in range(i, end)])
            if isinstance(amount, Pattern):
                for row, one in product(range(len(weights)), range(0, end - i, amount.of)):
                    order = np.argsort(scores[row, one : one + amount.of])[: amount.of - amount.kept]
                    zeros[row, i + one + order] = True
            else:
                bound = np.sort(scores, axis=None)[int(scores.size * amount + 0.5)]
                zeros[:, i:end] = scores < bound
        change = np.where(zeros[:, i], rest[:, i], 0) / inverses[i][0, 0]
        rest[:, i:] -= change[:, None] * inverses[i][0]
    return np.where(zeros, 0, rest)


@pytest.mark.parametrize(("width", "amount"), [
    (12, 0.5), (40, 0.75), (150, 0.5), (12, Pattern(2, 4)), (96, Pattern(1, 3)), (80, Pattern(2, 4)),
])  # fmt: skip
def test_sparsegpt_is_its_algorithm(width: int, amount: Amount) -> None:
    weights, products = layer(6, width)
    result = by_sparsegpt(weights, products, amount)[0]
    np.testing.assert_allclose(result, reference(weights[0], products[0], amount), atol=1e-7)


def test_one_zero_is_the_optimal_brain_surgeons() -> None:
    """One output: its cheapest weight by w^2 / [H^-1]_qq, w - w_q / [H^-1]_qq H^-1 e_q, where q is the first input."""
    for seed in range(40):
        weights, products = layer(1, 5, seed=seed)
        inverse = np.linalg.inv(products[0] + DAMPING * products[0].diagonal().mean() * np.eye(5))
        result = by_sparsegpt(weights, products, 0.2)[0, 0]
        if result[0] == 0:
            expected = weights[0, 0] - weights[0, 0, 0] / inverse[0, 0] * inverse[0]
            np.testing.assert_allclose(result, expected, atol=1e-9)
            return
    raise AssertionError("the first input was never the cheapest")


@pytest.mark.parametrize("amount", [0.5, 0.8, Pattern(2, 4)])
def test_outputs_lose_least_by_sparsegpt_then_wanda_then_magnitude(amount: Amount) -> None:
    weights, products = layer(24, 160, groups=2)
    squares = np.einsum("gii->gi", products)
    results = [by_sparsegpt(weights, products, amount), by_wanda(weights, squares, amount),
               by_magnitude(weights, amount)]  # fmt: skip
    ours, wanda, magnitude = (error(weights, result, products) for result in results)
    assert ours < 0.95 * wanda
    assert wanda < 0.9 * magnitude
    share = amount.share if isinstance(amount, Pattern) else amount
    assert [(result == 0).sum() for result in results] == [int(weights.size * share + 0.5)] * 3


def test_wanda_ranks_each_row_by_magnitude_times_norm() -> None:
    weights, products = layer(5, 20)
    squares = products[0].diagonal()[None]
    result = by_wanda(weights, squares, 0.4)[0]
    for row, new in zip(weights[0], result, strict=True):
        order = sorted(range(20), key=lambda i: abs(row[i]) * squares[0, i] ** 0.5)
        assert sorted(np.flatnonzero(new == 0)) == sorted(order[:8])
        assert new[order[8:]].tolist() == row[order[8:]].tolist()


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_zeros_that_there_are_stay_and_count(method: str) -> None:
    weights, products = layer(6, 40)
    weights[0, :, ::4] = 0
    sums = products if method == "sparsegpt" else np.einsum("gii->gi", products)
    result = pruned(weights, 0.5, method, sums)  # type: ignore[arg-type]
    assert not result[weights == 0].any()
    assert (result == 0).sum() == 120
    sparse = pruned(weights, 0.1, method, sums)  # type: ignore[arg-type]
    assert not sparse[weights == 0].any()


def test_inputs_that_are_never_active_go_first_and_nothing_known_of_them_is_magnitude() -> None:
    weights, products = layer(4, 20)
    products[0, 3], products[0, :, 3] = 0, 0
    weights[0, :, 3] = 50
    for method, sums in (("sparsegpt", products), ("wanda", np.einsum("gii->gi", products))):
        assert not pruned(weights, 0.3, method, sums)[0, :, 3].any()  # type: ignore[arg-type]
        without = pruned(weights, 0.3, method, None)  # type: ignore[arg-type]
        np.testing.assert_array_equal(without, by_magnitude(weights, 0.3))
    assert np.isfinite(by_sparsegpt(weights, np.zeros_like(products), 0.5)).all()
