"""Blocks of self-attention are found, and what is read there is what the models themselves attend with."""

from itertools import chain
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from pipeline.errors import ConfigError, StageError
from stages.kd.inspection.attention import Attention, attention_at, input_of, stacks
from stages.kd.inspection.hooks import Hook, Hooks
from stages.kd.losses.attention import attention_scores
from tests import translators

SIZES: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 16, "intermediate_size": 16}
PAIR: dict[str, Any] = {**translators.SIZES, "d_model": 16, "decoder_layers": 1}
PAIR |= {"pad_token_id": 0, "decoder_start_token_id": 0}


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SIZES),
    "distilbert": ("DistilBert", {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 16}),
    "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 4}),
    "bart": ("Bart", PAIR),
    "marian": ("Marian", PAIR),
    "vit": ("ViT", {**SIZES, "image_size": 8, "patch_size": 4}),
    "llama": ("Llama", {**SIZES, "num_key_value_heads": 2}),
    "t5": ("T5", {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 4}),
}


def made(name: str, how: str = "eager") -> nn.Module:
    torch.manual_seed(0)
    kind, sizes = KINDS[name]
    own: Any = {"vocab_size": 30, "attn_implementation": how, **sizes}
    module: nn.Module = getattr(hf, f"{kind}Model")(getattr(hf, f"{kind}Config")(**own))
    return module.eval()


def inputs(name: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if name == "vit":
        return {"pixel_values": torch.rand(2, 3, 8, 8, generator=generator)}
    ids = torch.randint(1, 30, (2, 5), generator=generator)
    return {"input_ids": ids, "decoder_input_ids": ids} if name in ("bart", "marian", "t5") else {"input_ids": ids}


def blocks(module: nn.Module) -> list[Attention]:
    return list(chain.from_iterable(stacks(module, "student")))


def read(module: nn.Module, given: dict[str, Tensor], **options: Any) -> tuple[list[tuple[Tensor, ...]], Any]:
    """(query, key, value) of every block, and what the module gave."""
    found = blocks(module)
    hooks = Hooks(module, [hook for block in found for hook in (block.query, block.key, block.value)])
    with torch.no_grad():
        output = module(**given, **options)
    values = hooks.take()
    return [tuple(values[3 * i : 3 * i + 3]) for i in range(len(found))], output


def attended(query: Tensor, key: Tensor, *, causal: bool) -> Tensor:
    scores = attention_scores(query, key)
    length = scores.shape[-1]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    return (scores.masked_fill(future, -1e9) if causal else scores).softmax(-1)


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "bart", "marian", "vit"])
def test_the_softmax_of_the_scores_is_the_attention_that_transformers_returns(name: str) -> None:
    module = made(name)
    values, output = read(module, inputs(name), output_attentions=True)
    keys = ("attentions", "encoder_attentions", "decoder_attentions")
    theirs = list(chain.from_iterable(output.get(key) or () for key in keys))
    assert len(theirs) == len(values) == len(blocks(module))
    for block, (query, key, value), expected in zip(blocks(module), values, theirs, strict=True):
        torch.testing.assert_close(attended(query, key, causal=name == "gpt2" or "decoder" in block.name), expected)
        assert value.shape == query.shape == (2, 4, query.shape[2], 4)


@pytest.mark.parametrize("name", ["bert", "bart", "gpt2"])
def test_it_does_not_depend_on_the_implementation(name: str) -> None:
    eager, fused = (read(made(name, how), inputs(name))[0] for how in ("eager", "sdpa"))
    for ours, theirs in zip(chain(*eager), chain(*fused), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_encoder_and_decoder_are_two_stacks_and_cross_attention_is_in_none() -> None:
    for name, ours, theirs in (("bart", "encoder.layers", "decoder.layers"), ("t5", "encoder.block", "decoder.block")):
        found = stacks(made(name), "student")
        decoders = 1 if name == "bart" else 2
        assert [block.layer for block in found[0]] == [f"{ours}.0", f"{ours}.1"]
        assert [block.layer for block in found[1]] == [f"{theirs}.{i}" for i in range(decoders)]


def test_keys_of_grouped_queries_are_repeated() -> None:
    (query, key, value), *_ = read(made("llama"), inputs("llama"))[0]
    assert query.shape == key.shape == value.shape == (2, 4, 5, 4)
    assert torch.equal(key[:, 0], key[:, 1])
    assert not torch.equal(key[:, 1], key[:, 2])


class Torch(nn.Module):
    """An encoder and a decoder of torch's own layers."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        settings: dict[str, Any] = {"dim_feedforward": 8, "batch_first": batch_first, "dropout": 0.0}
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, **settings), 2)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, **settings), 2)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        given = x if self.batch_first else x.transpose(0, 1)
        return self.decoder(given, self.encoder(given))


@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention_of_torch(batch_first: bool) -> None:
    torch.manual_seed(0)
    module, x = Torch(batch_first).eval(), torch.rand(3, 5, 8)
    values, _ = read(module, {"x": x})
    names = ["encoder.layers.0", "encoder.layers.1", "decoder.layers.0", "decoder.layers.1"]
    assert [block.name for block in blocks(module)] == [f"{name}.self_attn" for name in names]
    attention = module.encoder.layers[0].self_attn
    given = x if batch_first else x.transpose(0, 1)
    made, weights = attention(given, given, given, average_attn_weights=False)
    query, key, value = values[0]
    torch.testing.assert_close(attended(query, key, causal=False), weights)
    joined = attention.out_proj((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(joined, made if batch_first else made.transpose(0, 1))


@pytest.mark.parametrize("bias", [True, False])
def test_multihead_attention_with_other_widths_of_keys(bias: bool) -> None:
    class Asymmetric(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, bias=bias, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.attend(x, value=x[..., :4], key=x[..., :6], average_attn_weights=False)

    torch.manual_seed(0)
    ((query, key, _),), (_, weights) = read(Asymmetric().eval(), {"x": torch.rand(3, 5, 8)})
    torch.testing.assert_close(attended(query, key, causal=False), weights)


class Fused(nn.Module):
    """One linear layer for all three, as timm's ViT has it."""

    def __init__(self, heads: Any = 2) -> None:
        super().__init__()
        self.num_heads, self.qkv = heads, nn.Linear(8, 24)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.qkv(x).reshape(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4))


def test_one_linear_layer_for_all_three() -> None:
    values, expected = read(Fused(), {"x": torch.rand(3, 5, 8)})
    for ours, theirs in zip(values[0], expected, strict=True):
        assert torch.equal(ours, theirs)


def test_what_cannot_be_read_is_refused() -> None:
    message = r"no self-attention was found in the teacher; expected nn.MultiheadAttention"
    with pytest.raises(ConfigError, match=message):
        stacks(nn.Linear(2, 2), "teacher")
    with pytest.raises(ConfigError, match=r"does not say how many heads; expected an attribute num_attention_heads, "):
        stacks(nn.Sequential(Fused(heads=None)), "student")
    with pytest.raises(ConfigError, match=r"5 heads of `0` do not divide its width of 8"):
        stacks(nn.Sequential(Fused(heads=5)), "student")
    with pytest.raises(StageError, match=r"gave \(5, 8\); expected \(examples, positions, width\)"):
        read(nn.Sequential(Fused()), {"input": torch.rand(5, 8)})


def test_blocks_by_position_and_name() -> None:
    found = stacks(made("bart"), "student")
    assert attention_at(found, 0, "student") == found[0][0]
    assert attention_at(found, -1, "student") == attention_at(found, 2, "student") == found[1][0]
    for name in ("encoder.layers.1", "encoder.layers.1.self_attn"):
        assert attention_at(found, name, "student") == found[0][1]
    with pytest.raises(ConfigError, match=r"the student has no attention 3; expected 0 to 2"):
        attention_at(found, 3, "student")
    with pytest.raises(ConfigError, match=r"in `encoder.layer.1`; did you mean `encoder.layers.1`"):
        attention_at(found, "encoder.layer.1", "student")


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart", "vit", "t5"])
def test_what_the_first_layer_is_given_are_the_embeddings(name: str) -> None:
    module = made(name)
    first = stacks(module, "student")[0][0].layer
    hooks = Hooks(module, [Hook(first, input_of), Hook(first)])
    with torch.no_grad():
        output = module(**inputs(name), output_hidden_states=True)
    states = output.get("hidden_states") or output.encoder_hidden_states
    embeddings, hidden = hooks.take()
    assert torch.equal(embeddings, states[0])
    assert torch.equal(hidden, states[1])


def test_a_layer_that_is_given_no_numbers_is_refused() -> None:
    embedding = nn.Embedding(3, 2)
    Hooks(embedding, [Hook("", input_of)])
    with pytest.raises(StageError, match="Embedding was given no tensor of real numbers"):
        embedding(torch.tensor([0, 1]))
