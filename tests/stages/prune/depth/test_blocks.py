"""Which blocks are found, and that a bypass hands on what a block would have."""

import pytest
import torch
from torch import Tensor, nn

from stages.prune.depth.blocks import find, without


class Residual(nn.Module):
    def __init__(self, width: int, out: int | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out or width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.layers[2].out_features == x.shape[-1] else self.layers(x)


class Rows(nn.Module):
    """Blocks that give a tuple, with what all of them are handed."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.blocks, self.kind = nn.ModuleList(Cell(kind) for _ in range(3)), kind

    def forward(self, x: Tensor) -> Tensor:
        bias, read = x.mean(), torch.zeros(())
        for block in self.blocks:
            x, *rest = block(x, mask=None, bias=bias)
            read = read + rest[1] if self.kind == "read" else read
        return x + read


class Cell(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner, self.kind = nn.ModuleList([nn.Linear(4, 4)]), kind

    def forward(self, x: Tensor, mask: Tensor | None, bias: Tensor) -> tuple[Tensor | None, ...]:
        own = (None, x.sum())
        rest = {"handed on": (None, bias), "read": own, "spare": own, "alone": ()}[self.kind]
        return (x + self.inner[0](x) + bias, *rest)


def test_blocks_keep_the_shape_and_are_no_single_layers():
    net = nn.Sequential(nn.Linear(4, 8), Residual(8), nn.ReLU(), Residual(8), Residual(8, 6), nn.Linear(6, 2)).eval()
    blocks, others = find(net, {"input": torch.rand(2, 4)})
    assert blocks == {"1": None, "3": None}
    assert others == ["4"]


class Stage(nn.Module):
    """Blocks within a block where 8 come out."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.blocks, self.last = nn.ModuleList([Residual(8), Residual(8)]), nn.Linear(8, out)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def test_of_nested_ones_it_is_the_outermost_that_can_be_left_out():
    blocks, others = find(nn.Sequential(Stage(8), Stage(2)).eval(), {"input": torch.rand(2, 8)})
    assert [*blocks] == ["0", "1.blocks.0", "1.blocks.1"]
    assert others == []


@pytest.mark.parametrize(("ignore", "blocks"), [
    ("0", ["1"]), ("0.blocks", ["1"]), ("0.last", ["0.blocks.0", "0.blocks.1", "1"]),
    ("0.blocks.0", ["0.blocks.1", "1"]), ("0.blocks.1.layers.0", ["0.blocks.0", "1"]),
])  # fmt: skip
def test_what_is_ignored_stays_and_so_does_what_it_is_in(ignore, blocks):
    net = nn.Sequential(Stage(8), Stage(8), nn.Linear(8, 2)).eval()
    candidates, others = find(net, {"input": torch.rand(2, 8)}, [ignore])
    assert [*candidates] == blocks
    assert others == []


@pytest.mark.parametrize(("kind", "rest"), [("handed on", [None, "bias"]), ("alone", [])])
def test_a_bypass_hands_on_what_the_block_does(kind, rest):
    net, x = Rows(kind).eval(), torch.rand(2, 4)
    blocks, others = find(net, {"input": x})
    assert blocks == dict.fromkeys(("blocks.0", "blocks.1", "blocks.2"), rest)
    assert others == []
    with torch.no_grad():
        whole = net(x)
        with without(net, {"blocks.1": blocks["blocks.1"]}):
            shorter = net(x)
        first = net.blocks[0](x, None, x.mean())[0]
        assert torch.equal(shorter, net.blocks[2](first, None, x.mean())[0])
        assert torch.equal(net(x), whole)  # as it was


def test_what_only_a_block_gives_keeps_it_where_it_is_read():
    inputs = {"input": torch.rand(2, 4)}
    assert find(Rows("read").eval(), inputs) == ({}, ["blocks.0", "blocks.1", "blocks.2"])
    blocks, others = find(Rows("spare").eval(), inputs)
    assert blocks == {key: [None, None] for key in ("blocks.0", "blocks.1", "blocks.2")}
    assert others == []


def test_a_block_of_which_others_read_something_stays():
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3).eval()
    blocks, others = find(net, {"input": torch.rand(2, 4, 8)})
    assert others == ["layers.0"]  # whose attention the encoder looks at
    assert [*blocks] == ["layers.1", "layers.2"]


def test_they_are_as_before_after_an_error():
    net = Rows("alone").eval()
    block = net.blocks[1]
    with pytest.raises(ValueError, match="inside"), without(net, {"blocks.1": []}):
        raise ValueError("inside")
    assert net.blocks[1] is block
