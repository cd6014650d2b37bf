"""Relations as a term: between examples, and between the positions of a sequence."""

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from stages.kd.losses.relations import angle_loss, distance_loss
from stages.kd.terms.relations import Relations
from tests.aliases import Make
from tests.contexts import preview_of


class Attentive(nn.Module):
    """(N, L, 12) -> (N, L, 3): attention of its own, with heads * size as its width."""

    def __init__(self, heads: int, size: int, layers: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(heads, size) for _ in range(layers))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x, mask)
        return self.head(x)


class Block(nn.Module):
    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.num_heads, self.size = heads, size
        self.query, self.key, self.value = (nn.Linear(12, heads * size) for _ in range(3))
        self.out = nn.Linear(heads * size, 12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        parts = (self.query, self.key, self.value)
        q, k, v = (part(x).unflatten(-1, (self.num_heads, self.size)).transpose(1, 2) for part in parts)
        self.attended = (q @ k.mT / self.size**0.5).masked_fill(mask[:, None, None, :] == 0, -1e9).softmax(-1)
        return self.out((self.attended @ v).transpose(1, 2).flatten(2))


def attentive(heads: int = 2, size: int = 6, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return Attentive(heads, size).double()


def sequences(seed: int = 0) -> dict[str, Tensor]:
    x = torch.randn(2, 4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return {"x": x, "mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}


def own(**settings: Any) -> Relations:
    return Relations(kind="self_attention", **settings)


def test_examples_are_compared_where_the_last_linear_layer_reads(tiny: Make, compare: Make, task: Any) -> None:
    student, teacher = tiny(3).module.double(), tiny(6, seed=1).module.double()
    x = torch.stack([task.train[i][0]["input"] for i in range(6)]).double()

    def read(net: Any) -> Tensor:
        features = torch.relu(net.conv2(torch.relu(net.conv1(x))))
        return nn.functional.adaptive_avg_pool2d(features, 2).flatten(1)

    ours, theirs = read(student), read(teacher)
    expected = 25 * distance_loss(ours, theirs) + 50 * angle_loss(ours, theirs)
    torch.testing.assert_close(compare(Relations(), student, [teacher], {"input": x})[0], expected)
    one = Relations(distance_weight=3, angle_weight=0, layer=("conv1", "conv2"))
    expected = 3 * distance_loss(student.conv1(x), teacher.conv2(torch.relu(teacher.conv1(x))))
    torch.testing.assert_close(compare(one, student, [teacher], {"input": x})[0], expected)


def test_only_relations_count(tiny: Make, compare: Make, task: Any) -> None:
    teacher = tiny().module.double()
    student = copy.deepcopy(teacher)
    with torch.no_grad():  # what the last layer is given grows as a whole, which changes no relation
        student.conv2.weight *= 3
        student.conv2.bias *= 3
    x = torch.stack([task.train[i][0]["input"] for i in range(6)]).double()
    assert compare(Relations(), student, [teacher], {"input": x})[0].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("parts", [("queries", "keys", "values"), ("attention", "values")])
def test_a_student_that_equals_its_teacher_has_no_loss(compare: Make, parts: Any) -> None:
    teacher = attentive()
    loss, _ = compare(own(parts=parts, mask="mask"), copy.deepcopy(teacher), [teacher], sequences())
    assert loss.item() == pytest.approx(0, abs=1e-12)
    other, _ = compare(own(parts=parts, mask="mask"), attentive(seed=1), [teacher], sequences())
    assert other.item() > 1e-3


def test_attention_itself_is_the_divergence_of_what_the_models_attend_to(compare: Make) -> None:
    student, teacher, inputs = attentive(size=3), attentive(seed=1), sequences()
    loss, _ = compare(own(parts=["attention"], mask="mask"), student, [teacher], inputs)
    ours, theirs = student.layers[-1].attended, teacher.layers[-1].attended
    counted = inputs["mask"][:, None, :, None].double()
    terms = torch.where(theirs > 0, theirs * (theirs.clamp_min(1e-300) / ours.clamp_min(1e-300)).log(), 0.0)
    torch.testing.assert_close(loss, (counted * terms).sum() / (2 * inputs["mask"].sum()))


def test_parts_are_added_up_and_heads_regrouped(compare: Make) -> None:
    student, teacher, inputs = attentive(heads=3, size=4), attentive(heads=2, size=9, seed=1), sequences()
    whole, _ = compare(own(relation_heads=6, mask="mask"), student, [teacher], inputs)
    terms = [own(parts=[part], relation_heads=6, mask="mask") for part in ("queries", "keys", "values")]
    single = [compare(term, student, [teacher], inputs)[0] for term in terms]
    torch.testing.assert_close(whole, torch.stack(single).sum())
    probabilities = []
    for model in (student, teacher):
        last = inputs["x"] + model.layers[0](inputs["x"], inputs["mask"])  # what the last layer is given
        split = model.layers[-1].query(last).unflatten(-1, (6, -1)).transpose(1, 2)
        scores = split @ split.mT / split.shape[-1] ** 0.5
        probabilities.append(scores.masked_fill(inputs["mask"][:, None, None, :] == 0, -1e9).softmax(-1))
    ours, theirs = (p.clamp_min(1e-300) for p in probabilities)
    counted = inputs["mask"][:, None, :, None].double()
    torch.testing.assert_close(single[0], (counted * theirs * (theirs / ours).log()).sum() / (6 * inputs["mask"].sum()))


def test_gradients_reach_queries_keys_and_values(compare: Make) -> None:
    student = attentive()
    compare(own(), student, [attentive(seed=1)], sequences())[0].backward()
    last = student.layers[-1]
    assert all(part.weight.grad.abs().sum() > 0 for part in (last.query, last.key, last.value))


def test_another_layer_than_the_last(compare: Make) -> None:
    student, teacher, inputs = attentive(), attentive(seed=1), sequences()
    layers = (None, (0, 0), ("layers.0", "layers.0"))
    last, first, named = (compare(own(layer=layer), student, [teacher], inputs)[0] for layer in layers)
    assert torch.equal(first, named)
    assert not torch.allclose(first, last)


def test_what_cannot_work_is_refused_before_work(tiny: Make, refused: Make) -> None:
    two, three, net = attentive(), attentive(3, 4), tiny().module
    refused(r"5 relation heads do not divide the widths 12 and 12.*divides 12", own(relation_heads=5), two, two)
    refused(r"2 relation heads do not divide the widths 9 and 12.*divides 3", own(), attentive(3, 3), two)
    list(own().check_models(three, [two], preview_of(None)))
    message = r"student has 3 attention heads, the teacher 2.*\[queries, keys, values\]"
    refused(message, own(parts=["attention"]), three, two)
    refused("the student has no attention 2; expected 0 to 1", own(layer=(2, 0)), two, two)
    refused("no self-attention was found in the teacher", own(), two, net)
    refused(r"the teacher has no layer `con2`; did you mean `conv2`", Relations(layer=("conv2", "con2")), net, net)
    refused(r"the student has no nn.Linear. Name a `layer`", Relations(), nn.Conv2d(1, 1, 1), net)


@pytest.mark.parametrize(("settings", "message"), [
    ({"relation_heads": 3}, "`relation_heads` is for `kind: self_attention`, not examples"),
    ({"kind": "self_attention", "angle_weight": 3}, "`angle_weight` is for `kind: examples`"),
    ({"layer": (0, 1)}, "takes names of layers"),
    ({"angle_weight": 0, "distance_weight": 0}, "both weights are 0"),
    ({"kind": "self_attention", "parts": ["value"]}, "'values'"),
])  # fmt: skip
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Relations(**settings)
