"""Features as a term: what stands between student and teacher, and the loss of named layers."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, StageError
from stages.kd.losses.features import same_places
from stages.kd.terms.features import Features, regressor
from tests.aliases import Make


class Sequences(nn.Module):
    """Tokens (N, L) -> (N, 3), by way of (N, L, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = torch.tanh(self.mix(self.embed(ids)))
        return self.head((x * mask[..., None]).sum(1))


def double(module: nn.Module) -> nn.Module:
    return module.double().eval()


def test_a_student_that_equals_its_teacher_has_no_loss(tiny: Make, compare: Make) -> None:
    teacher = tiny().module
    term = Features(layers=[["conv1", "conv1"], ["conv2", "conv2"]])
    loss, (adapter,) = compare(term, copy.deepcopy(teacher), [teacher], tiny().example)
    assert loss.item() == 0
    assert not list(adapter.parameters())


@pytest.mark.parametrize("normalize", [False, True])
def test_channels_that_differ_go_through_a_trained_1x1_convolution(tiny: Make, compare: Make, normalize: bool) -> None:
    student, teacher = double(tiny(3).module), double(tiny(5, seed=1).module)
    x = tiny().example["input"].double()
    term = Features(layers=[["conv1", "conv2"], ["conv2", "conv2"]], normalize=normalize)
    loss, (adapter,) = compare(term, student, [teacher], {"input": x})
    first = student.conv1(x)
    ours = [first, student.conv2(torch.relu(first))]
    theirs = teacher.conv2(torch.relu(teacher.conv1(x)))
    expected = torch.zeros((), dtype=torch.float64)
    for features, convolution in zip(ours, adapter.children(), strict=True):
        made = torch.einsum("nchw,dc->ndhw", features, convolution.weight[:, :, 0, 0])
        made = made + convolution.bias[None, :, None, None]
        pair = [f / f.norm(dim=1, keepdim=True) for f in (made, theirs)] if normalize else [made, theirs]
        expected = expected + (pair[0] - pair[1]).square().mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in adapter.parameters())
    assert student.conv1.weight.grad.abs().sum() > 0


def test_padding_of_sequences_does_not_count(compare: Make) -> None:
    torch.manual_seed(0)
    student, teacher = double(Sequences(4)), double(Sequences(6))
    ids, mask = torch.randint(0, 9, (3, 5)), torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    other = torch.where(mask == 1, ids, (ids + 1) % 9)
    term = Features(layers=[["mix", "mix"]], mask="mask")
    losses = [compare(term, student, [teacher], {"ids": x, "mask": mask})[0] for x in (ids, other)]
    assert torch.equal(*losses)
    unmasked = Features(layers=[["mix", "mix"]])
    losses = [compare(unmasked, student, [teacher], {"ids": x, "mask": mask})[0] for x in (ids, other)]
    assert not torch.allclose(*losses)


def test_layers_without_positions_need_no_mask(compare: Make) -> None:
    torch.manual_seed(0)
    model = double(Sequences(4))
    inputs = {"ids": torch.randint(0, 9, (3, 5)), "mask": torch.ones(3, 5)}
    loss, _ = compare(Features(layers=[["mix", "mix"], ["head", "head"]], mask="mask"), model, [model], inputs)
    assert loss.item() == 0
    with pytest.raises(StageError, match=r"no input `msk`; expected one of \['ids', 'mask'\]"):
        compare(Features(layers=[["mix", "mix"]], mask="msk"), model, [model], inputs)


def test_several_teachers_count_by_their_shares(tiny: Make, compare: Make) -> None:
    student, inputs = tiny(8).module, tiny().example
    teachers = [tiny(8, seed=seed).module for seed in (1, 2)]
    term = Features(layers=[["conv2", "conv2"]])
    single = [compare(term, student, [teacher], inputs)[0] for teacher in teachers]
    both, adapters = compare(term, student, teachers, inputs, shares=(0.25, 0.75))
    torch.testing.assert_close(both, 0.25 * single[0] + 0.75 * single[1])
    assert len(adapters) == 2


@pytest.mark.parametrize(("student", "teacher", "kind"), [
    ((2, 3), (2, 5), nn.Linear),
    ((2, 7, 3), (2, 7, 5), nn.Linear),
    ((2, 3, 4, 4), (2, 5, 4, 4), nn.Conv2d),
    ((2, 3, 4, 4, 4), (2, 5, 2, 2, 2), nn.Conv3d),
    ((2, 3), (2, 3), nn.Identity),
    ((2, 3, 4, 4), (2, 3, 2, 2), nn.Identity),
])  # fmt: skip
def test_regressors_and_pooling(student: tuple[int, ...], teacher: tuple[int, ...], kind: type) -> None:
    ours, theirs = torch.rand(student), torch.rand(teacher)
    regress = regressor(ours, theirs)
    assert type(regress) is kind
    pair = same_places(ours, theirs) if len(student) >= 4 else (ours, theirs)
    assert regress(pair[0]).shape == pair[1].shape


def test_the_larger_places_are_averaged_axis_by_axis() -> None:
    ours, theirs = torch.rand(2, 3, 8, 2), torch.rand(2, 3, 4, 6)
    taught, teaching = same_places(ours, theirs)
    torch.testing.assert_close(taught, ours.reshape(2, 3, 4, 2, 2).mean(3))
    torch.testing.assert_close(teaching, theirs.reshape(2, 3, 4, 2, 3).mean(4))


@pytest.mark.parametrize(("student", "teacher", "message"), [
    ((2, 3), (2, 3, 4, 4), r"a and b give \(2, 3\) and \(2, 3, 4, 4\); expected both.*same kind"),
    ((2,), (2,), "expected both"),
    ((2, 5, 3), (2, 6, 3), r"give \(2, 5, 3\) and \(2, 6, 3\); expected as many positions"),
])  # fmt: skip
def test_features_of_another_kind_are_refused(student: Any, teacher: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        regressor(torch.rand(student), torch.rand(teacher), "a and b")


def test_unknown_layers_are_refused_before_work(tiny: Make, refused: Make) -> None:
    net = tiny().module
    refused("the student has no layer `conv3`; did you mean `conv2`", Features(layers=[["conv3", "conv2"]]), net, net)
    refused("the teacher has no layer `haed`; did you mean `head`", Features(layers=[["conv1", "haed"]]), net, net)
