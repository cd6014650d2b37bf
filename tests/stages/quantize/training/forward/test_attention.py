from typing import Any

import pytest
import torch
from torch import nn

from stages.quantize.training.forward.attention import attention, is_plain
from stages.quantize.training.forward.records import Looking, record

CAUSAL = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
PADDING = torch.tensor([[False] * 5, [False, False, False, True, True], [False] * 4 + [True]])
OPTIONS: list[dict[str, Any]] = [
    {},
    {"attn_mask": CAUSAL},
    {"attn_mask": CAUSAL.float() * -2},
    {"key_padding_mask": PADDING},
    {"key_padding_mask": PADDING, "attn_mask": CAUSAL},
    {"attn_mask": torch.rand(6, 5, 5), "key_padding_mask": PADDING},
    {"average_attn_weights": False},
    {"need_weights": False},
]


class Seen(Looking):
    """Notes which functions it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def see(self, func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self.names.append(func.__name__)
        return func(*args, **named)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_it_is_torchs_attention_call_by_call(options: dict[str, Any], bias: bool) -> None:
    torch.manual_seed(0)
    part = nn.MultiheadAttention(8, 2, bias=bias, batch_first=True).train()
    x = torch.randn(3, 5, 8)
    expected = part(x, x, x, **options)
    with Seen() as seen:
        ours = part(x, x, x, **options)
    assert seen.names.count("linear") == 2
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_attention_to_others_and_what_is_appended_is_left_to_torch() -> None:
    x, y = torch.randn(5, 3, 8), torch.randn(4, 3, 8)
    for part, args in (
        (nn.MultiheadAttention(8, 2), (x, y, y)),
        (nn.MultiheadAttention(8, 2, add_bias_kv=True), (x, x, x)),
    ):
        with Seen() as seen:
            ours = part(*args)
        assert "linear" not in seen.names
        torch.testing.assert_close(ours, part(*args))


def test_unbatched_sequences_and_weights_apart_are_no_plain_attention() -> None:
    x = torch.randn(5, 3, 8)
    rest = (8, 2, torch.rand(24, 8), None, None, None, False, 0.0, torch.rand(8, 8), None)
    assert is_plain(x, x, x, *rest)
    assert not is_plain(x[:, 0], x[:, 0], x[:, 0], *rest)
    assert not is_plain(x, x, x, *rest, use_separate_proj_weight=True)
    assert attention(x, x, x, *rest)[0].shape == x.shape


def test_a_record_counts_what_reads_a_value_and_the_caller_too() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = torch.relu(x)
            return {"sum": y + y.sqrt(), "y": y}

    recording = record(Twice(), {"input": torch.rand(2, 3)})
    (y,) = recording.records[0].gives
    assert [one.name for one in recording.records] == ["relu", "sqrt", "add"]
    assert recording.readers[y] == 3
    assert recording.only_reader(y) is None
    assert recording.only_reader(recording.records[1].gives[0]) is recording.records[2]
