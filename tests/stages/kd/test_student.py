"""Students: fewer layers, narrower, with the teacher's weights, on real architectures in small."""

import copy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.build.syntax.validate import validate
from pipeline.errors import ConfigError
from pipeline.forms.layers import layer_lists
from pipeline.model import TorchModel
from pipeline.run.roundtrip import save_exactly
from stages.kd.inspection.layers import evenly, keep_layers
from stages.kd.student import Student
from tests.aliases import Make
from tests.translators import SIZES

HERE = Path(__file__).parent
DIGITS = HERE.parents[2] / "configs" / "digits"
VOCABULARY = 50


def lengths(module: nn.Module) -> dict[str, int]:
    return {name: len(layers) for name, layers in layer_lists(module).items()}


def bert(hidden: int = 32, layers: int = 4) -> nn.Module:
    sizes: Any = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // 16}
    return hf.BertForSequenceClassification(hf.BertConfig(vocab_size=VOCABULARY, intermediate_size=2 * hidden, **sizes))


def distilbert() -> nn.Module:
    config = hf.DistilBertConfig(vocab_size=VOCABULARY, dim=32, n_layers=4, n_heads=2, hidden_dim=64)
    return hf.DistilBertForSequenceClassification(config)


PAIR: dict[str, Any] = {**SIZES, "encoder_layers": 4, "decoder_layers": 4, "vocab_size": VOCABULARY}
PAIR |= {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None}


def bart() -> nn.Module:
    return hf.BartForConditionalGeneration(hf.BartConfig(**PAIR))


def marian() -> nn.Module:
    return hf.MarianMTModel(hf.MarianConfig(**PAIR))


def gpt2(width: int = 32) -> nn.Module:
    config = hf.GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=width, n_layer=4, n_head=width // 16)
    return hf.GPT2LMHeadModel(config)


def qwen2() -> nn.Module:
    sizes: Any = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**sizes, use_sliding_window=True, sliding_window=4, max_window_layers=2))


def t5() -> nn.Module:
    sizes: Any = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 4, "num_heads": 2}
    return hf.T5ForConditionalGeneration(hf.T5Config(**sizes, decoder_start_token_id=0))


def resnet() -> nn.Module:
    sizes: Any = {"num_channels": 1, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 4], "num_labels": 3}
    return hf.ResNetForImageClassification(hf.ResNetConfig(**sizes, layer_type="basic"))


class Torch(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        layer = nn.TransformerEncoderLayer(width, width // 16, 2 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4)
        for part in self.encoder.layers:
            nn.init.normal_(part.linear1.weight)  # nn.TransformerEncoder's layers begin as copies of one

    def forward(self, ids: Tensor) -> Tensor:
        return self.encoder(self.embed(ids))


class Pyramid(nn.Module):
    """Blocks that all halve the width, and behind them a loop over a fixed number of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Sequential(nn.Linear(2 * n, n), nn.Linear(n, n)) for n in (16, 8))
        self.flat = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.down:
            x = part(x)
        for i in range(3):
            x = x + self.flat[i](x)
        return x


class Told(nn.Module):
    """Gives what each of its layers gave, in one tensor; has a table of positions that depends on its width."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Linear(width, width)) for _ in range(3))
        self.register_buffer("order", torch.arange(width).flip(0))

    def forward(self, x: Tensor) -> Tensor:
        made = [x[:, self.order]]
        for block in self.blocks:
            made.append(block(made[-1]))
        return torch.stack(made, 1)


def ids(length: int = 6) -> Tensor:
    return torch.randint(3, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(1))


def teacher(name: str, **arguments: Any) -> TorchModel:
    """A built teacher, with its BatchNorm statistics and zero or one initialized tensors made distinct."""
    torch.manual_seed(0)
    inputs: Inputs = {"input_ids": ids()}
    if name in ("bart", "marian", "t5"):
        inputs["decoder_input_ids"] = ids(4)
    if name in ("resnet", "models.py:DigitNet"):
        inputs = {"input": torch.rand(2, 1, 8 if ":" in name else 32, 8 if ":" in name else 32)}
    if name == "Pyramid":
        inputs = {"input": torch.rand(2, 32)}
    use, folder = (name, DIGITS) if ":" in name else (f"test_student.py:{name}", HERE)
    model = TorchModel.build(Reference(use=use, arguments=arguments, folder=folder), inputs)
    with torch.no_grad():
        for tensor in model.module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


def shrunk(model: TorchModel, **settings: Any) -> TorchModel:
    return Student(shrink_of="teacher", **settings).build(model, model.example)


def state(model: TorchModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


LISTS = {
    "bert": ["bert.encoder.layer"],
    "distilbert": ["distilbert.transformer.layer"],
    "bart": ["model.encoder.layers", "model.decoder.layers"],
    "marian": ["model.encoder.layers", "model.decoder.layers"],
    "gpt2": ["transformer.h"],
    "qwen2": ["model.layers"],
    "t5": ["encoder.block", "decoder.block"],
    "Torch": ["encoder.layers"],
}


@pytest.mark.parametrize("name", LISTS)
def test_layers_are_found(name: str):
    found = teacher(name).module
    assert lengths(found) == dict.fromkeys(LISTS[name], 4)
    assert layer_lists(found) == {key: [f"{key}.{i}" for i in range(4)] for key in LISTS[name]}


@pytest.mark.parametrize(("count", "kept"), [(1, [0]), (2, [0, 2]), (3, [0, 1, 2])])
@pytest.mark.parametrize("name", LISTS)
def test_kept_layers_have_the_teachers_weights_and_survive_saving(name: str, count: int, kept: list[int], tmp_path):
    model = teacher(name)
    before, outputs = state(model), model.predict(model.example)
    student = shrunk(model, layers=count)
    expected = {}
    for key, value in before.items():
        inside = next((lst for lst in LISTS[name] if key.startswith(f"{lst}.")), None)
        if inside:
            old, _, rest = key.removeprefix(f"{inside}.").partition(".")
            if int(old) not in kept:
                continue
            key = f"{inside}.{kept.index(int(old))}.{rest}"
        expected[key] = value
    assert same(state(student), expected)
    assert lengths(student.module) == dict.fromkeys(LISTS[name], count)
    made = student.predict(student.example)
    assert made.keys() == outputs.keys()
    assert all(torch.isfinite(value).all() for value in made.values())
    save_exactly(student, tmp_path, student.builder.folder)
    # The teacher: neither changed nor shared.
    with torch.no_grad():
        for parameter in student.module.parameters():
            parameter.zero_()
    assert same(state(model), before)
    assert same(model.predict(model.example), outputs)
    assert not any(part._forward_hooks for part in model.module.modules())


@pytest.mark.parametrize("name", ["bert", "distilbert", "bart", "marian", "gpt2", "qwen2", "t5"])
def test_the_config_and_positions_follow(name: str):
    student = shrunk(teacher(name), layers=2).module
    fresh = teacher(name).module.config
    keys = ("num_hidden_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers", "num_decoder_layers")
    for key in (key for key in keys if hasattr(fresh, key)):
        assert getattr(student.config, key) == 2
    assert {part.layer_idx for part in student.modules() if getattr(part, "layer_idx", None) is not None} <= {0, 1}
    for part in student.modules():
        assert getattr(part, "config", student.config).num_hidden_layers == 2


def test_one_side_of_an_encoder_decoder():
    for name, key in (("bart", "model.decoder.layers"), ("t5", "decoder.block")):
        model = teacher(name)
        student = shrunk(model, layers={key: 1}).module
        assert sorted(lengths(student).values()) == [1, 4]
        assert student.config.num_hidden_layers == 4
        depth = "decoder_layers" if name == "bart" else "num_decoder_layers"
        assert (getattr(student.config, depth), getattr(model.module.config, depth)) == (1, 4)
    encoder = shrunk(teacher("bart"), layers={"model.encoder.layers": 1}).module.config
    assert (encoder.encoder_layers, encoder.decoder_layers, encoder.num_hidden_layers) == (1, 4, 1)
    counts = shrunk(teacher("t5"), layers={"encoder.block": 1}).module
    assert (counts.encoder.config.num_layers, counts.decoder.config.num_layers) == (1, 4)
    assert shrunk(teacher("Torch"), layers=3).module.encoder.num_layers == 3  # torch's encoder knows its layers


def test_layer_types_go_with_their_layers():
    model = teacher("qwen2")
    types = model.module.config.layer_types
    assert len(set(types)) == 2
    assert shrunk(model, layers=2).module.config.layer_types == [types[0], types[2]]


@pytest.mark.parametrize(("name", "layers"), [
    *product(["gpt2", "qwen2"], [1, 2]), *product(["bart", "marian", "t5"], [1, 2, "decoder", "encoder"]),
])  # fmt: skip
def test_generation_with_a_cache_gives_what_it_gives_without(name: str, layers: int | str):
    wanted = {next(key for key in LISTS[name] if layers in key): 2} if isinstance(layers, str) else layers
    student = shrunk(teacher(name), layers=wanted).module
    how: Any = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(ids())}
    made = [student.generate(ids(), use_cache=cached, **how) for cached in (True, False)]
    assert torch.equal(*made)
    assert made[0].shape[1] >= 8


@pytest.mark.parametrize(("name", "layers", "linears", "tolerance"), [
    ("gpt2", "transformer.h", ("attn.c_proj", "mlp.c_proj"), 0),
    ("bert", "bert.encoder.layer", ("attention.output.dense", "output.dense"), 1e-5),
])  # fmt: skip
def test_dropping_layers_that_do_nothing_changes_nothing(name: str, layers: str, linears: Any, tolerance: float):
    model = teacher(name)
    with torch.no_grad():
        for norm in (part for part in model.module.modules() if name == "bert" and isinstance(part, nn.LayerNorm)):
            norm.weight.fill_(1)  # a norm of what is normed already does nothing
            norm.bias.zero_()
        for linear in (model.module.get_submodule(f"{layers}.{i}.{key}") for i in (1, 3) for key in linears):
            linear.weight.zero_()
            linear.bias.zero_()
    outputs, made = (m.predict(m.example)["logits"] for m in (model, shrunk(model, layers=2)))
    torch.testing.assert_close(made, outputs, atol=tolerance, rtol=tolerance)
    other = replace(model, module=keep_layers(copy.deepcopy(model.module), {layers: [0, 1]}))
    assert not torch.allclose(other.predict(model.example)["logits"], outputs, atol=1e-4)


def test_digit_net_loses_blocks(tmp_path):
    model = teacher("models.py:DigitNet", width=8)
    student = shrunk(model, layers={"blocks": 2})
    assert len(student.module.blocks) == 2
    for i in (0, 1):
        assert same(student.module.blocks[i].state_dict(), model.module.blocks[i].state_dict())
    save_exactly(student, tmp_path, DIGITS)


def test_blocks_that_change_shape_stay(tmp_path):
    model = teacher("resnet")
    stages = [f"resnet.encoder.stages.{i}.layers" for i in (0, 1)]
    assert lengths(model.module) == dict(zip(stages, [2, 4], strict=True))
    student = shrunk(model, layers=1)
    assert lengths(student.module) == dict.fromkeys(stages, 1)
    assert student.module.config.layer_type == "basic"
    assert same(*(m.module.resnet.encoder.stages[1].layers[0].state_dict() for m in (student, model)))
    save_exactly(student, tmp_path, HERE)


def test_layers_that_must_stay_or_that_a_model_counts_for_itself_are_refused():
    with pytest.raises(ConfigError, match=r"`down` cannot keep 1 layers: those at \[0, 1\] must stay"):
        shrunk(teacher("Pyramid"), layers={"down": 1})
    with pytest.raises(ConfigError, match=r"fewer layers in `flat`.*IndexError"):
        shrunk(teacher("Pyramid"), layers=2)


@pytest.mark.parametrize(("length", "count", "needed", "kept"), [
    (12, 6, [], [0, 2, 4, 6, 8, 10]),
    (4, 3, [], [0, 1, 2]),
    (6, 3, [0, 2], [0, 2, 4]),
    (6, 3, [0, 5], [0, 1, 5]),
    (6, 2, [0, 5], [0, 5]),
    (5, 4, [0, 4], [0, 1, 2, 4]),
])  # fmt: skip
def test_evenly(length: int, count: int, needed: list[int], kept: list[int]):
    assert evenly(length, count, needed) == kept


def test_narrower_digit_net_has_the_leading_channels(tmp_path):
    model = teacher("models.py:DigitNet", width=8)
    before = state(model)
    student = shrunk(model, width=4)
    ours = state(student)
    assert torch.equal(ours["stem.weight"], before["stem.weight"][:4])
    assert torch.equal(ours["blocks.2.conv1.weight"], before["blocks.2.conv1.weight"][:4, :4])
    assert torch.equal(ours["norm.running_var"], before["norm.running_var"][:4])
    assert torch.equal(ours["head.weight"], before["head.weight"][:, :16])  # 4 channels of 2x2 places
    assert torch.equal(ours["head.bias"], before["head.bias"])
    assert student.builder.arguments == {"width": 4}
    assert same(state(model), before)
    save_exactly(student, tmp_path, DIGITS)


def test_narrower_computes_what_the_teacher_computes_where_the_rest_is_silent():
    """With every other channel's outgoing weights at zero the leading ones are all of the function."""
    model = teacher("models.py:DigitNet", width=8)
    with torch.no_grad():
        for block in model.module.blocks:
            for conv in (block.conv1, block.conv2):
                conv.weight[:, 4:] = 0
        model.module.head.weight[:, 16:] = 0
    made = shrunk(model, width=4).predict(model.example)["output"]
    torch.testing.assert_close(made, model.predict(model.example)["output"])


def test_fewer_blocks_by_argument_take_every_kth(tmp_path):
    model = teacher("models.py:DigitNet", width=8, blocks=4)
    student = shrunk(model, width=4, blocks=2)
    for new, old in ((0, 0), (1, 2)):
        ours, theirs = student.module.blocks[new], model.module.blocks[old]
        assert torch.equal(ours.conv2.weight, theirs.conv2.weight[:4, :4])
        assert torch.equal(ours.norm2.running_mean, theirs.norm2.running_mean[:4])
    both = shrunk(model, width=4, layers=2)
    assert same(state(both), state(student))
    assert both.builder.arguments == {"width": 4, "blocks": 4}
    save_exactly(both, tmp_path, DIGITS)


def test_more_blocks_or_wider_keep_their_fresh_weights():
    model = teacher("models.py:DigitNet", width=8, blocks=2)
    torch.manual_seed(5)
    student = shrunk(model, width=8, blocks=3)
    torch.manual_seed(5)
    fresh = TorchModel.build(student.builder, model.example)
    assert torch.equal(student.module.blocks[2].conv1.weight, fresh.module.blocks[2].conv1.weight)
    assert torch.equal(student.module.blocks[1].conv1.weight, model.module.blocks[1].conv1.weight)
    torch.manual_seed(5)
    wider = shrunk(model, width=9)
    torch.manual_seed(5)
    fresh = TorchModel.build(wider.builder, model.example)
    assert torch.equal(wider.module.stem.weight, fresh.module.stem.weight)


def test_narrower_transformers_keep_whole_heads_of_query_key_and_value(tmp_path):
    fused, torchs = teacher("gpt2"), teacher("Torch")
    ours = shrunk(fused, width=16, layers=2)
    old, new = fused.module.transformer.h[2].attn.c_attn, ours.module.transformer.h[1].attn.c_attn
    assert torch.equal(new.weight, torch.cat([part[:16, :16] for part in old.weight.split(32, dim=1)], dim=1))
    assert torch.equal(new.bias, torch.cat([part[:16] for part in old.bias.split(32)]))
    save_exactly(ours, tmp_path / "gpt2", HERE)
    old, new = (m.module.encoder.layers[3].self_attn for m in (torchs, shrunk(torchs, width=16)))
    assert torch.equal(new.in_proj_weight, torch.cat([part[:16, :16] for part in old.in_proj_weight.split(32)]))
    assert torch.equal(new.in_proj_bias, torch.cat([part[:16] for part in old.in_proj_bias.split(32)]))
    encoder = teacher("bert")
    narrow = shrunk(encoder, hidden=16, layers=3)
    key = "bert.encoder.layer.2.attention.self.query.weight"
    assert torch.equal(state(narrow)[key], state(encoder)[key][:16, :16])
    save_exactly(narrow, tmp_path / "bert", HERE)


def test_a_table_of_positions_is_not_cut_and_other_outputs_than_the_teachers_are_refused():
    model = TorchModel.build(Reference(use="test_student.py:Told", folder=HERE), {"x": torch.rand(2, 8)})
    narrow = Student(shrink_of="teacher", width=4).build(replace(model, example={"x": torch.rand(2, 4)}), {})
    assert narrow.module.order.tolist() == [3, 2, 1, 0]
    with pytest.raises(ConfigError, match=r"gives outputs {'output': \(2, 3, 8\)}; expected {'output': \(2, 4, 8\)}"):
        shrunk(model, layers=2)


def test_a_builder_of_the_users(tiny: Make, tmp_path):
    example = tiny().example
    named = {"use": "conftest.py:TinyNet", "folder": HERE.parents[1]}
    student, other = (Student(**named, width=width).build(None, example) for width in (4, 3))
    assert (student.module.conv1.out_channels, other.module.conv1.out_channels) == (4, 3)
    assert type(student.builder) is Reference
    assert student.builder.arguments == {"width": 4}
    save_exactly(student, tmp_path, HERE.parents[1])


def test_the_model_that_comes_in_is_the_student_as_it_is(tiny: Make):
    model = tiny()
    assert Student(use="incoming").build(tiny(16), model.example, {}, model) is model
    with pytest.raises(ConfigError, match=r"student: no torch model comes in.*Give the student a builder"):
        Student(use="incoming").build(model, model.example)


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "either `use: "),
    ({"width": 3}, "either `use: "),
    ({"use": "models.py:Net", "shrink_of": "teacher", "layers": 2}, "either `use: "),
    ({"use": "teacher", "layers": 2}, "no arguments beside `use: teacher`"),
    ({"use": "teacher", "width": 2}, "no arguments beside `use: teacher`"),
    ({"use": "incoming", "layers": 2}, "no arguments beside `use: incoming`"),
    ({"shrink_of": "teacher"}, "beside `shrink_of`"),
    ({"shrink_of": "teacher", "layers": {}}, "beside `shrink_of`"),
    ({"shrink_of": "teacher", "layers": 0}, "a number of layers, 1 or more"),
    ({"shrink_of": "teacher", "layers": True}, "a number of layers, 1 or more"),
    ({"shrink_of": "baseline", "layers": 2}, "'teacher'"),
])  # fmt: skip
def test_settings_that_cannot_work(settings: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Student(**settings)


def test_settings_from_a_file_say_what_is_wrong():
    class Holder(BaseModel):
        student: Student

    def read(**student: Any) -> Holder:
        return validate(Holder, {"student": student}, None, (), DIGITS)

    with pytest.raises(ConfigError, match=r"student: `student` does not fit; expected either `use: models.py:Net` or"):
        read(width=3)
    with pytest.raises(ConfigError, match=r"student: `student` does not fit; expected a number of layers, 1 or"):
        read(shrink_of="teacher", layers={"blocks": 0})
    made = read(use="models.py:DigitNet", width=4).student.build(None, teacher("models.py:DigitNet").example)
    assert made.builder.folder == DIGITS


def test_errors_say_what_to_do():
    model = teacher("models.py:DigitNet", width=8)
    with pytest.raises(ConfigError, match=r"takes no `widht`; did you mean `width`\?.*expected `width`, `blocks`"):
        shrunk(model, widht=4)
    with pytest.raises(ConfigError, match="no list of layers `block`; did you mean `blocks`"):
        shrunk(model, layers={"block": 2})
    with pytest.raises(ConfigError, match=r"`blocks` has 3 layers; expected at least 4"):
        shrunk(model, layers={"blocks": 4})
    for layers in (3, 9, {"blocks": 3}):
        with pytest.raises(ConfigError, match=r"nothing to shrink; expected .*`blocks` with 3"):
            shrunk(model, layers=layers)
    with pytest.raises(ConfigError, match=r"changed by `stages.kd.inspection.layers:keep_layers`.*Use `layers` alone"):
        shrunk(shrunk(model, layers=2), width=4)
    with pytest.raises(ConfigError, match="no torch model to shrink"):
        Student(shrink_of="teacher", layers=2).build(None, model.example)
    with pytest.raises(ConfigError, match=r"no list `encoder.layers` with 6 layers"):  # a saved edit
        teacher("Torch").edited("stages.kd.inspection.layers:keep_layers", lists={"encoder.layers": [0, 5]})


def test_a_shrunk_teacher_is_shrunk_again(tmp_path):
    student = shrunk(shrunk(teacher("bert"), layers=3), layers=1)
    assert len(student.edits) == 2
    assert lengths(student.module) == {"bert.encoder.layer": 1}
    save_exactly(student, tmp_path, HERE)


def test_lists_within_lists_and_lists_of_plain_layers():
    def block() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    class Expert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(block() for _ in range(3))

    outer = nn.ModuleDict({"body": nn.ModuleList(Expert() for _ in range(2)), "mlp": nn.Sequential(*block(), block())})
    assert layer_lists(outer) == {"body": ["body.0", "body.1"]}
    shared = block()
    assert layer_lists(nn.ModuleList([shared, shared])) == {}
    assert layer_lists(nn.Sequential(block(), block())) == {"": ["0", "1"]}
