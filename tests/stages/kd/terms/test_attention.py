"""Attention as a term: maps of CNNs, and TinyBERT's layers against what transformers itself returns."""

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from pipeline.errors import ConfigError
from stages.kd.terms.attention import AttentionTerm, mapped
from tests.aliases import Make
from tests.contexts import preview_of


def bert(layers: int, hidden: int = 16, heads: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    sizes: Any = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    sizes |= {"vocab_size": 30, "intermediate_size": 16, "max_position_embeddings": 12}
    config = BertConfig(**sizes, initializer_range=0.3, attn_implementation="eager")
    return BertForSequenceClassification(config).double().eval()


def sentences(seed: int = 0) -> dict[str, Any]:
    ids = torch.randint(1, 30, (2, 5), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])}


def transformer(**settings: Any) -> AttentionTerm:
    return AttentionTerm(kind="transformer", **settings)


NOTHING = {"scores": False, "hidden": False, "embeddings": False}


@pytest.mark.parametrize(("ours", "theirs", "mapping", "expected"), [
    (2, 4, "uniform", [1, 3]),
    (4, 12, "uniform", [2, 5, 8, 11]),  # g(m) = 3 m of the paper
    (2, 5, "uniform", [1, 4]),
    (3, 3, "uniform", [0, 1, 2]),
    (1, 4, "uniform", [3]),
    (2, 4, "last", [2, 3]),
    (4, 12, "last", [8, 9, 10, 11]),
])  # fmt: skip
def test_mapping(ours: int, theirs: int, mapping: Any, expected: list[int]) -> None:
    student: Any = [list(range(ours))]
    teacher: Any = [list(range(theirs))]
    assert list(mapped(student, teacher, mapping)) == list(enumerate(expected))


def test_stacks_are_mapped_one_by_one() -> None:
    student: Any = [["e0"], ["d0", "d1"]]
    teacher: Any = [["E0", "E1"], ["D0", "D1"]]
    assert list(mapped(student, teacher, "uniform")) == [("e0", "E1"), ("d0", "D0"), ("d1", "D1")]
    with pytest.raises(ConfigError, match="student has 2 stacks of attention, the teacher 1"):
        list(mapped(student, teacher[:1], "uniform"))
    with pytest.raises(ConfigError, match="student has 2 layers with attention, the teacher 1; expected 1 or fewer"):
        list(mapped(student[1:], [["D0"]], "uniform"))  # type: ignore[list-item]


def test_a_student_that_equals_its_teacher_has_no_loss(compare: Make) -> None:
    teacher = bert(2)
    loss, (adapter,) = compare(transformer(mask="attention_mask"), copy.deepcopy(teacher), [teacher], sentences())
    assert loss.item() == 0
    assert not list(adapter.parameters())


@pytest.mark.parametrize(("mapping", "positions"), [("uniform", [1, 3]), ("last", [2, 3])])
def test_hidden_states_and_embeddings_are_those_of_transformers(compare: Make, mapping: str, positions: Any) -> None:
    student, teacher, inputs = bert(2), bert(4, seed=1), {"input_ids": sentences()["input_ids"]}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    ours, theirs = (m(**inputs, output_hidden_states=True).hidden_states for m in (student, teacher))
    term = transformer(**{**NOTHING, "hidden": True}, mapping=mapping)
    expected = sum(F.mse_loss(ours[i + 1], theirs[j + 1]) for i, j in enumerate(positions))
    torch.testing.assert_close(compare(term, student, [teacher], inputs)[0], expected)
    term = transformer(**{**NOTHING, "embeddings": True}, mapping=mapping)
    torch.testing.assert_close(compare(term, student, [teacher], inputs)[0], F.mse_loss(ours[0], theirs[0]))


def test_scores_are_those_whose_softmax_transformers_returns(compare: Make) -> None:
    # Scores are known from attention up to a constant a row, so student and teacher differ by such constants at most
    # where their attention is the same: give both the same keys and queries up to a bias of the queries' layer.
    student, inputs = bert(1), sentences()
    teacher = copy.deepcopy(student)
    with torch.no_grad():
        teacher.bert.encoder.layer[0].attention.self.key.bias += 1.0
    a, b = (m(**inputs, output_attentions=True).attentions[0] for m in (student, teacher))
    torch.testing.assert_close(a, b)
    loss, _ = compare(transformer(**{**NOTHING, "scores": True}, mask="attention_mask"), student, [teacher], inputs)
    attention = student.bert.encoder.layer[0].attention.self
    hidden = student(**inputs, output_hidden_states=True).hidden_states[0]
    shift = attention.query(hidden).reshape(2, 5, 2, 8).sum(-1) / 8**0.5  # (N, L, heads), the same for every key
    counted = inputs["attention_mask"].double()
    weight = counted.sum(1)[:, None, None] * counted[:, :, None]
    torch.testing.assert_close(loss, (weight * shift.square()).sum() / (2 * counted.sum(1).square().sum()))


def test_padding_does_not_count(compare: Make) -> None:
    student, teacher, inputs = bert(2, hidden=8), bert(4), sentences()
    other = {**inputs, "input_ids": torch.where(inputs["attention_mask"] == 0, 7, inputs["input_ids"])}
    assert not torch.equal(other["input_ids"], inputs["input_ids"])
    for mask, same in (("attention_mask", True), (None, False)):
        losses = [compare(transformer(mask=mask), student, [teacher], x)[0] for x in (inputs, other)]
        assert torch.allclose(*losses, rtol=1e-12) is same


def test_widths_that_differ_share_one_projection_among_the_layers(compare: Make) -> None:
    student, teacher = bert(3, hidden=8), bert(3, hidden=16, seed=1)
    loss, (adapter,) = compare(transformer(), student, [teacher], sentences())
    shapes = [tuple(p.shape) for p in adapter.parameters()]
    assert shapes == [(16, 8), (16,), (16, 8), (16,)]  # of the embeddings, and of all layers
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in adapter.parameters())
    assert len(compare(transformer(embeddings=False), student, [teacher], sentences())[1][0]) == 3
    assert len(compare(transformer(hidden=False), student, [teacher], sentences())[1][0]) == 1


@pytest.mark.parametrize("pair", [[0, -1], ["bert.encoder.layer.0", "bert.encoder.layer.2.attention.self"]])
def test_layers_by_position_or_name(compare: Make, pair: list[Any]) -> None:
    student, teacher, inputs = bert(1), bert(3, seed=1), sentences()
    term = transformer(layers=[pair], mask="attention_mask")
    expected, _ = compare(transformer(mapping="last", mask="attention_mask"), student, [teacher], inputs)
    torch.testing.assert_close(compare(term, student, [teacher], inputs)[0], expected)


def test_what_cannot_work_is_refused_before_work(tiny: Make, refused: Make) -> None:
    student, teacher, net = bert(2, hidden=8), bert(4, heads=4), tiny().module
    refused(r"has 2 attention heads, .* of the teacher 4; .*kind: self_attention", transformer(), student, teacher)
    list(transformer(scores=False).check_models(student, [teacher], preview_of(None)))
    message = r"no attention in `bert.encoder.layer.5`; did you mean `bert.encoder.layer"
    refused(message, transformer(layers=[[0, "bert.encoder.layer.5"]]), student, teacher)
    refused("the teacher has no attention 4; expected 0 to 3", transformer(layers=[[0, 4]]), student, teacher)
    refused(r"no self-attention was found in the student; .*query/key/value", transformer(), net, teacher)
    refused("the student has no layer `conv3`; did you mean", AttentionTerm(layers=[["conv3", "conv2"]]), net, net)


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "`kind: maps` needs `layers`"),
    ({"layers": [[0, 1]]}, "`kind: maps` needs `layers`"),
    ({"layers": [["a", "b"]], "mapping": "last"}, "`mapping` is for `kind: transformer`, not maps"),
    ({"kind": "transformer", "power": 3}, "`power` is for `kind: maps`"),
    ({"kind": "transformer", **NOTHING}, "nothing is left to compare"),
    ({"kind": "transformer", "layers": [[0, 1]], "mapping": "last"}, "of no use beside `layers`"),
])  # fmt: skip
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AttentionTerm(**settings)


@pytest.mark.parametrize("power", [1, 2])
def test_maps_are_compared_whatever_the_channels(tiny: Make, compare: Make, power: int) -> None:
    student, teacher = tiny(3).module.double(), tiny(6, seed=1).module.double()
    x = tiny().example["input"].double()
    term = AttentionTerm(layers=[["conv1", "conv2"]], power=power, map_weight=10)
    loss, (adapter,) = compare(term, student, [teacher], {"input": x})
    maps = [f.abs().pow(power).sum(1).flatten(1) for f in (student.conv1(x), teacher.conv2(teacher.conv1(x).relu()))]
    ours, theirs = (m / m.norm(dim=1, keepdim=True) for m in maps)
    torch.testing.assert_close(loss, 10 * (ours - theirs).square().mean())
    assert not list(adapter.parameters())
    assert compare(term, student, [student], {"input": x})[0] > 0
    same = AttentionTerm(layers=[["conv1", "conv1"], ["conv2", "conv2"]])
    assert compare(same, student, [copy.deepcopy(student)], {"input": x})[0].item() == 0
