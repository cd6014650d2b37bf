"""Splits give the same batches for the same seed, and a view depends on its example, not on its batch."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from pipeline.base.batches import Inputs, Outputs, as_inputs
from pipeline.errors import ConfigError
from pipeline.task import (
    CALIBRATION_EXAMPLES,
    Forward,
    Split,
    Task,
    classification,
    correct,
    cross_entropy,
    sample,
    split_by_seed,
)


def numbers(count: int, start: int = 0) -> Split:
    values = torch.arange(start, start + count)
    return Split(TensorDataset(values.float()[:, None], values))


def order(split: Split, batch_size: int = 4, **options: tuple[int, int]) -> list[int]:
    return torch.cat([batch.index for batch in split.loader(batch_size, **options)]).tolist()


class Named:
    """Two named inputs; the target is a pair."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], tuple[int, str]]:
        return {"tokens": torch.arange(index + 1), "length": torch.tensor(index + 1)}, (index, "x" * index)


def pad(rows: list[tuple[Inputs, tuple[int, str]]]) -> tuple[Inputs, list[tuple[int, str]]]:
    tokens = nn.utils.rnn.pad_sequence([inputs["tokens"] for inputs, _ in rows], batch_first=True)
    return {"tokens": tokens, "length": torch.stack([inputs["length"] for inputs, _ in rows])}, [t for _, t in rows]


def test_without_an_order_batches_come_in_order_and_whole() -> None:
    batches = list(numbers(10).loader(4))
    assert [batch.index.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.equal(batches[1].inputs["input"], torch.arange(4.0, 8.0)[:, None])
    assert batches[1].targets.tolist() == [4, 5, 6, 7]


def test_a_shuffle_depends_on_seed_and_epoch_alone() -> None:
    split = numbers(40)
    found = {key: order(split, order=key) for key in ((0, 0), (0, 1), (1, 0), (1, 1))}
    torch.manual_seed(99)
    assert {key: order(split, order=key) for key in found} == found
    assert len({tuple(o) for o in found.values()}) == 4
    assert all(sorted(o) == list(range(40)) for o in found.values())


def test_the_order_of_examples_does_not_depend_on_the_batch_size() -> None:
    assert order(numbers(24), 4, order=(3, 5)) == order(numbers(24), 8, order=(3, 5))


@pytest.mark.parametrize(("size", "batch_size", "seen"), [(10, 4, 8), (8, 4, 8), (3, 4, 3)])
def test_training_drops_a_last_batch_that_is_not_full_unless_it_is_alone(size: int, batch_size: int, seen: int) -> None:
    assert len(order(numbers(size), batch_size, order=(0, 0))) == seen


def jitter(inputs: Inputs, seed: int, epoch: int) -> Inputs:
    return {"input": inputs["input"] + torch.rand(1, generator=torch.Generator().manual_seed((seed + epoch) % 2**63))}


def views(batch_size: int, key: tuple[int, int], workers: int = 0) -> Tensor:
    found = torch.empty(12)
    for batch in numbers(12).loader(batch_size, order=key, augment=jitter, workers=workers):
        found[batch.index] = batch.inputs["input"][:, 0]
    return found


def test_a_view_depends_on_seed_epoch_and_example_but_not_on_its_batch() -> None:
    first = views(3, (1, 2))
    assert torch.equal(first, views(6, (1, 2)))
    assert torch.equal(first, views(4, (1, 2), workers=1))
    assert len((first - torch.arange(12.0)).unique()) == 12
    for other in ((1, 3), (2, 2)):
        assert not (views(3, other) - first).eq(0).any()


def test_calibration_is_a_part_of_train_by_default(task: Task) -> None:
    big = numbers(CALIBRATION_EXAMPLES + 100)
    made = classification(big, numbers(4), numbers(4))
    chosen = [int(made.calibration[i][1]) for i in range(len(made.calibration))]
    assert len(set(chosen)) == len(chosen) == CALIBRATION_EXAMPLES
    assert set(chosen) < set(range(len(big)))
    assert len(task.calibration) == len(task.train)


def test_a_given_calibration_split_is_kept() -> None:
    mine = numbers(3)
    assert classification(numbers(9), numbers(4), numbers(4), calibration=mine).calibration is mine


def test_sample_is_fixed_by_its_seed() -> None:
    chosen = [[sample(numbers(50), 10, seed)[i][1].item() for i in range(10)] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize("shares", [[0.65, 0.1, 0.25], [1 / 3, 1 / 3, 1 / 3], [0.1] * 10, [0.5, 0.2]])
def test_split_by_seed_parts_do_not_overlap_and_have_their_shares(shares: list[float]) -> None:
    parts = [[int(part[i][1]) for i in range(len(part))] for part in split_by_seed(numbers(997), shares)]
    together = [i for part in parts for i in part]
    assert len(together) == len(set(together)) == pytest.approx(997 * sum(shares), abs=1)
    assert [len(part) for part in parts] == [pytest.approx(997 * share, abs=1) for share in shares]
    assert [split_by_seed(numbers(997), shares)[0][i][1].item() for i in range(3)] == parts[0][:3]


@pytest.mark.parametrize("shares", [[0.9, 0.2], [-0.4, 0.5, 0.9]])
def test_shares_that_cannot_be_are_refused(shares: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"the shares are .*expected 0 or more each, at most 1 in all"):
        split_by_seed(numbers(10), shares)


def test_named_inputs_go_through_a_collate_of_the_users() -> None:
    batches = list(Split(Named(), collate=pad).loader(3))
    assert batches[0].inputs["tokens"].tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 2]]
    assert batches[1].inputs["length"].tolist() == [4, 5]
    assert batches[1].targets == [(3, "xxx"), (4, "xxxx")]
    assert list(batches[0].inputs) == ["tokens", "length"]


def test_select_forgets_the_fingerprint_of_the_whole() -> None:
    chosen = Split(numbers(9).dataset, fingerprint="abc").select([4, 2])
    assert [int(chosen[i][1]) for i in range(2)] == [4, 2]
    assert chosen.fingerprint is None


def test_inputs_that_are_no_tensors_are_refused() -> None:
    with pytest.raises(ConfigError, match="inputs are list; expected a tensor or a dictionary"):
        as_inputs([1, 2])  # type: ignore[arg-type]


def test_classification_reads_the_first_output() -> None:
    logits, other = torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.zeros(2, 2)
    targets = torch.tensor([0, 0])
    assert correct(logits, targets).tolist() == [1.0, 0.0]
    expected = -(logits[:, 0] - logits.logsumexp(-1)).mean()
    assert cross_entropy({"a": logits, "b": other}, targets).item() == pytest.approx(expected.item())


def test_decode_takes_the_first_output_unless_given(task: Task) -> None:
    def forward(inputs: Inputs) -> Outputs:
        return {"a": inputs["input"] + 1, "b": inputs["input"] + 2}

    def second(forward: Forward, inputs: Inputs) -> Tensor:
        return forward(inputs)["b"]

    one = {"input": torch.zeros(1)}
    assert task.decode(forward, one).item() == 1
    assert classification(task.train, task.validation, task.test, decode=second).decode(forward, one).item() == 2
