"""The factors: the closed form of Eckart and Young, an independent one in the metric of the inputs, and Tucker-2."""

import pytest
import torch
from torch import nn

from stages.prune.ranks.decomposition import best, energy, exact, kept
from stages.prune.ranks.factors import factors, fill, matrix

DRAW = torch.Generator().manual_seed(0)


def drawn(*shape):
    return torch.randn(*shape, generator=DRAW)


LINEAR, CONV = drawn(20, 30), drawn(12, 10, 3, 5)
WEIGHTS = {"linear": LINEAR, "tall": LINEAR.mT.contiguous(), "1x1": drawn(20, 30, 1, 1), "spatial": CONV,
           "1d": drawn(12, 10, 3), "3d": drawn(6, 5, 2, 3, 2)}  # fmt: skip


def product(weights, like):
    """What two factors compute together, as a weight."""
    first, last = (w[..., None] if w.ndim == 2 else w.flatten(2) for w in weights)
    return torch.einsum("orx,riy->oiyx", last, first).reshape(like.shape)


def correlated(width, count=500):
    """Inputs of which some directions hold most, and a root of their second moment by Cholesky."""
    mix = drawn(width, width).double() * 0.8 ** torch.arange(width)[:, None]
    inputs = drawn(count, width).double() @ mix
    return inputs, torch.linalg.cholesky(inputs.mT @ inputs)


def root_of(inputs):
    energies, vectors = torch.linalg.eigh(inputs.mT @ inputs)
    return vectors * energies.clamp_min(0).sqrt()


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("rank", [1, 4, 5])
def test_what_two_factors_lose_are_the_singular_values_that_are_left_out(weight, rank):
    values = torch.linalg.svdvals(matrix(weight.double()))
    weights = best(weight, None, [rank])
    lost = (product(weights, weight) - weight).norm()
    assert float(lost) == pytest.approx(float(values[rank:].square().sum().sqrt()), rel=1e-6)
    share = float(values[:rank].square().sum() / values.square().sum())
    assert energy(weight, weights, None) == pytest.approx(share)
    assert float(kept(weight, None, 1)[rank - 1]) == pytest.approx(share)


@pytest.mark.parametrize("name", ["linear", "tall"])
@pytest.mark.parametrize("rank", [2, 6, 12])
def test_in_the_metric_of_the_inputs_they_are_those_of_whitening_and_beat_plain_ones(name, rank):
    """The reference whitens by Cholesky, as SVD-LLM (arXiv:2403.07378) does, and inverts; ours does neither."""
    weight = WEIGHTS[name].double()
    inputs, whitening = correlated(weight.shape[1])
    u, s, v = torch.linalg.svd(weight @ whitening)
    reference = (u[:, :rank] * s[:rank]) @ v[:rank] @ torch.linalg.inv(whitening)
    weights = best(weight, root_of(inputs), [rank])
    ours = product(weights, weight)
    assert torch.allclose(ours, reference, atol=1e-6)
    plain = product(best(weight, None, [rank]), weight)
    lost, of_plain = (float(((w - weight) @ inputs.mT).norm()) for w in (ours, plain))
    assert lost < 0.9 * of_plain
    share = 1 - (lost / float((weight @ inputs.mT).norm())) ** 2
    assert energy(weight, weights, whitening) == pytest.approx(share)
    assert float(kept(weight, whitening, 1)[rank - 1]) == pytest.approx(share)


def test_directions_that_no_input_has_need_no_inverse():
    inputs = drawn(5, 30).double()
    ours = product(best(LINEAR, root_of(inputs), [5]), LINEAR)
    assert torch.allclose(ours @ inputs.mT, LINEAR.double() @ inputs.mT)


@pytest.mark.parametrize("weight", [CONV, WEIGHTS["1d"], WEIGHTS["3d"]], ids=["2d", "1d", "3d"])
@pytest.mark.parametrize("metric", [False, True])
def test_tucker_at_full_rank_is_exact_and_less_keeps_no_less_than_truncation(weight, metric):
    root = correlated(weight.shape[1])[1] if metric else None
    outputs, inputs = weight.shape[:2]
    assert energy(weight, best(weight, root, [inputs, outputs]), root) == pytest.approx(1)
    table = kept(weight, root, 2)
    assert float(table[-1, -1]) == pytest.approx(1)
    for inner, outer in ((1, 1), (2, 4), (4, 3)):
        weights = best(weight, root, [inner, outer])
        assert [len(w) for w in weights] == [inner, outer, outputs]
        assert energy(weight, weights, root) >= float(table[inner - 1, outer - 1]) - 1e-9


def test_the_table_of_tucker_is_what_projections_on_the_first_directions_keep():
    table = kept(CONV, None, 2)
    u_out, u_in = (torch.linalg.svd(rows)[0] for rows in (CONV.flatten(1), CONV.movedim(1, 0).flatten(1)))
    core = torch.einsum("oiab,or,is->rsab", CONV, u_out[:, :7], u_in[:, :4])
    assert float(table[3, 6]) == pytest.approx(float(core.square().sum() / CONV.square().sum()), rel=1e-5)


@pytest.mark.parametrize("metric", [False, True])
def test_a_kernel_of_low_rank_is_found(metric):
    low = torch.einsum("or,rsab,is->oiab", drawn(12, 3), drawn(3, 2, 3, 3), drawn(10, 2))
    root = correlated(10)[1] if metric else None
    assert energy(low, best(low, root, [2, 3]), root) == pytest.approx(1)
    assert energy(low, best(low, root, [2, 2]), root) < 0.995


def test_factors_share_the_size_of_the_weight():
    for weight, ranks in ((LINEAR * 1e3, [6]), (CONV, [4])):
        first, last = best(weight, None, ranks)
        assert torch.allclose(first.flatten(1).norm(dim=1), last.movedim(1, 0).flatten(1).norm(dim=1))


def test_of_no_energy_nothing_is_lost():
    for weight, ranks in ((torch.zeros(8, 8), [2]), (torch.zeros(8, 8, 3, 3), [2, 2])):
        assert (kept(weight, None, len(ranks)) == 1).all()
        assert all(w.isfinite().all() for w in best(weight, None, ranks))


@pytest.mark.parametrize(("layer", "count"), [
    (nn.Linear(6, 9), 1), (nn.Conv2d(4, 6, (3, 5)), 1), (nn.Conv2d(4, 6, 3), 2), (nn.Conv1d(4, 6, 3), 1)
])  # fmt: skip
def test_with_identities_factors_give_the_same(layer, count):
    weights = exact(layer.weight, count)
    sequence = factors(layer, [len(w) for w in weights[:-1]])
    fill(sequence, weights)
    values = drawn(2, 6) if isinstance(layer, nn.Linear) else drawn(2, 4, *[9] * (layer.weight.ndim - 2))
    assert torch.allclose(sequence(values), layer(values), atol=1e-6)
