"""Axes of any length and several outputs in the deployed file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.errors import StageError
from pipeline.model import OnnxModel, TorchModel

pytestmark = pytest.mark.anew

TOKENS = {"input_ids": {1: "tokens"}, "attention_mask": {1: "tokens"}}


def made(module: nn.Module, example: Inputs, axes: Any) -> TorchModel:
    return TorchModel(module.eval(), example, Reference(use="torch.nn:Module"), axes=axes)


def ids(*shape: int) -> Tensor:
    return torch.randint(0, 10, shape, generator=torch.Generator().manual_seed(0))


def shapes(model: OnnxModel) -> dict[str, list[int | str]]:
    session = model.session
    return {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}


class Several(nn.Module):
    """Two inputs of lengths of their own; three outputs by name, and some that are none of an ONNX file."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 3)

    def forward(self, first: Tensor, second: Tensor) -> dict[str, Any]:
        a, b = self.embed(first), self.embed(second)
        logits = self.head(a.mean(1) + b.mean(1))
        return {"nothing": None, "a": a, "inner": (a, b), "logits": logits, "b": b}


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.embed(first) + self.embed(second)


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(28, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x).flatten(1))


def test_an_encoder_takes_any_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=10, **sizes, max_position_embeddings=64, attn_implementation="eager")
    example = {"input_ids": ids(2, 1), "attention_mask": torch.ones(2, 1, dtype=torch.long)}  # one step is no constant
    model = made(BertForSequenceClassification(config), example, TOKENS)
    file = deploy(model, tmp_path / "bert.onnx")
    assert shapes(file) == {
        "input_ids": ["batch", "tokens"],
        "attention_mask": ["batch", "tokens"],
        "logits": ["batch", 2],
    }
    for batch, length in ((1, 5), (3, 60)):
        mask = torch.ones(batch, length, dtype=torch.long)
        mask[:, 4:] = 0
        inputs = {"input_ids": ids(batch, length), "attention_mask": mask}
        assert torch.allclose(file.predict(inputs)["logits"], model.predict(inputs)["logits"], atol=1e-5)


def test_outputs_by_name_are_written_and_what_is_nested_is_not(tmp_path: Path) -> None:
    axes = {"first": {1: "one"}, "second": {1: "other"}}
    model = made(Several(), {"first": ids(2, 6), "second": ids(2, 6)}, axes)
    file = deploy(model, tmp_path / "several.onnx")
    assert shapes(file) == {
        "first": ["batch", "one"],
        "second": ["batch", "other"],
        "a": ["batch", "one", 4],
        "logits": ["batch", 3],
        "b": ["batch", "other", 4],
    }
    inputs = {"first": ids(3, 2), "second": ids(3, 9)}
    theirs, ours = model.predict(inputs), file.predict(inputs)
    assert list(ours) == list(theirs) == ["a", "logits", "b"]
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)


def test_lengths_that_depend_on_each_other_need_the_same_name(tmp_path: Path) -> None:
    example = {"first": ids(2, 6), "second": ids(2, 6)}
    message = r"the forward needs axis 1 of `second` \(b\) to be as long as a; .* the same name in the task's `axes`"
    with pytest.raises(StageError, match=message):
        deploy(made(Sum(), example, {"first": {1: "a"}, "second": {1: "b"}}), tmp_path / "sum.onnx")
    with pytest.raises(StageError, match=r"fixes axis 1 of `second` \(b\) to 6"):
        deploy(made(Sum(), example, {"second": {1: "b"}}), tmp_path / "sum.onnx")
    file = deploy(made(Sum(), example, {"first": {1: "a"}, "second": {1: "a"}}), tmp_path / "sum.onnx")
    assert file.predict({"first": ids(2, 3), "second": ids(2, 3)})["output"].shape == (2, 3, 4)


def test_an_axis_that_the_forward_fixes_is_an_error(tmp_path: Path) -> None:
    message = r"ONNX export: the forward fixes axis 1 of `x` \(tokens\) to 7; expected any length\. Reshape"
    with pytest.raises(StageError, match=message):
        deploy(made(Fixed(), {"x": ids(2, 7)}, {"x": {1: "tokens"}}), tmp_path / "fixed.onnx")


def test_axes_travel_with_the_model(tmp_path: Path) -> None:
    builder = Reference(use="torch.nn:Embedding", arguments={"num_embeddings": 10, "embedding_dim": 4})
    model = TorchModel.build(builder, {"x": ids(2, 3)}, {"x": {1: "tokens"}})
    model.save(tmp_path / "saved")
    assert TorchModel.load(tmp_path / "saved", allow=["torch.nn:Embedding"]).axes == {"x": {1: "tokens"}}


class Recurrent(nn.Module):
    """A recurrent layer whose states' shape is used, and one in the other direction."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.onward, self.back = kind(3, 8, batch_first=True), kind(3, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        onward, back = self.onward(x)[0], self.back(x.flip(1))[0]
        return torch.cat([onward, back.expand_as(onward)], 2).amax(1)


@pytest.mark.parametrize("kind", [nn.LSTM, pytest.param(nn.GRU, marks=pytest.mark.slow)])
def test_each_recurrent_module_is_deployed_for_any_length_whatever_was_captured_before(
    kind: type[nn.RNNBase], tmp_path: Path
) -> None:
    model = made(Recurrent(kind), {"x": torch.randn(2, 12, 3)}, {"x": {1: "steps"}})
    torch.export.export(model.module, (model.example["x"],))  # by someone else, at one length
    deploy(replace(model, axes={}), tmp_path / "fixed" / "model.onnx")
    for name, recurrent in (("captured", model.module), ("another", Recurrent(kind))):
        model = made(recurrent, model.example, model.axes)

        deployed = deploy(model, tmp_path / name / "model.onnx")

        assert shapes(deployed)["x"] == ["batch", "steps", 3], name
        longer = {"x": torch.randn(3, 31, 3)}
        torch.testing.assert_close(deployed.predict(longer), model.predict(longer), atol=1e-5, rtol=1e-4)


class Tagger(nn.Module):
    """Outputs of each step behind a recurrent layer; one has as many columns as the example has steps."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(10, 4), kind(4, 7, batch_first=True), nn.Linear(7, 20)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        states = self.layer(self.embed(x))[0]
        return {"states": states, "logits": self.head(states), "last": states[:, -1]}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_outputs_of_each_step_behind_a_recurrent_layer_have_any_length(kind: type[nn.RNNBase], tmp_path: Path) -> None:
    model = made(Tagger(kind), {"x": ids(2, 7)}, {"x": {1: "tokens"}})

    deployed = deploy(model, tmp_path / "model.onnx")

    found = shapes(deployed)
    assert found["states"] == ["batch", "tokens", 7]
    assert found["logits"] == ["batch", "tokens", 20]
    assert found["last"] == ["batch", 7]
    torch.testing.assert_close(
        deployed.predict({"x": ids(3, 11)}), model.predict({"x": ids(3, 11)}), atol=1e-5, rtol=1e-4
    )
