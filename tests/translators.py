"""Tiny encoder-decoders from their configurations, and a task that they can be asked about: copying a sequence."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

from pipeline.base.batches import Inputs, Outputs
from pipeline.base.use import Reference
from pipeline.model import TorchModel
from pipeline.task import Forward, Split, Task

PAD, START, END, WORDS = 0, 1, 2, 40
SOURCE, TARGET = 7, 6
COMMON: dict[str, Any] = {"vocab_size": WORDS, "pad_token_id": PAD, "eos_token_id": END}
COMMON |= {"decoder_start_token_id": START}
SIZES: dict[str, Any] = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
SIZES |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 32}


class Logits(nn.Module):
    """A transformers model that gives its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> dict[str, Tensor]:
        given = {"attention_mask": attention_mask, "decoder_input_ids": decoder_input_ids}
        # Its own default is left out while a graph is traced.
        given["decoder_attention_mask"] = torch.ones_like(decoder_input_ids)
        return {"logits": self.model(input_ids, **given, use_cache=False).logits}


def marian(**changes: Any) -> Logits:
    config = MarianConfig(**COMMON, **{**SIZES, **changes}, forced_eos_token_id=None, attn_implementation="eager")
    return Logits(MarianMTModel(config))


def bart() -> Logits:
    config = BartConfig(**COMMON, **SIZES, forced_eos_token_id=None, bos_token_id=START, attn_implementation="eager")
    return Logits(BartForConditionalGeneration(config))


def t5() -> Logits:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return Logits(T5ForConditionalGeneration(T5Config(**COMMON, **sizes, attn_implementation="eager")))


def made(name: str, **arguments: Any) -> TorchModel:
    """An untrained one whose decisions are clear, since its weights are large."""
    torch.manual_seed(3)
    builder = Reference(use=f"translators.py:{name}", arguments=arguments, folder=Path(__file__).parent)
    model = TorchModel.build(builder, {n: v[:2] for n, v in inputs(copies(2, 0)).items()})
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.mul_(1.0 if name == "t5" else 4.0)
        table = model.module.model.get_input_embeddings().weight
        table.mul_(torch.linspace(0.6, 1.2, WORDS)[:, None])  # words of all sizes
    return model


def copies(count: int, seed: int) -> list[tuple[Inputs, Tensor]]:
    """Sequences of three to five words, an end, and padding; the target is the same."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        words = torch.randint(3, WORDS, (int(torch.randint(3, 6, (), generator=generator)),), generator=generator)
        ids = torch.cat([words, torch.tensor([END])])
        source = torch.nn.functional.pad(ids, (0, SOURCE - len(ids)), value=PAD)
        target = torch.nn.functional.pad(ids, (0, TARGET - len(ids)), value=PAD)
        shifted = torch.cat([torch.tensor([START]), target[:-1]])
        mask = (source != PAD).long()
        rows.append(({"input_ids": source, "attention_mask": mask, "decoder_input_ids": shifted}, target))
    return rows


def inputs(rows: list[tuple[Inputs, Tensor]]) -> Inputs:
    return {name: torch.stack([row[0][name] for row in rows]) for name in rows[0][0]}


def token_loss(outputs: Outputs, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), targets.flatten(), ignore_index=PAD)


def greedy(forward: Forward, given: Inputs) -> Tensor:
    """Token by token by the forward alone; what a model generates itself is taken as it is."""
    buffer = torch.full_like(given["decoder_input_ids"], PAD)
    buffer[:, 0] = START
    ids, ended = torch.full_like(buffer, PAD), torch.zeros(len(buffer), dtype=torch.bool)
    for step in range(buffer.shape[1]):
        outputs = forward({**given, "decoder_input_ids": buffer})
        if "sequences" in outputs:
            return padded(outputs["sequences"])
        ids[:, step] = outputs["logits"][:, step].argmax(-1).masked_fill(ended, PAD)
        ended |= ids[:, step] == END
        buffer[:, step + 1 : step + 2] = ids[:, step : step + 1]
    return ids


def padded(sequences: Tensor) -> Tensor:
    return torch.nn.functional.pad(sequences, (0, TARGET - sequences.shape[1]), value=PAD)


def exact(predictions: Tensor, targets: Tensor) -> Tensor:
    return (predictions == targets).float().mean(1)


def task(train: int = 96) -> Task:
    rows = {
        name: Split(copies(size, seed))
        for seed, (name, size) in enumerate((("train", train), ("validation", 12), ("test", 16)))
    }
    return Task(**rows, loss=token_loss, score=exact, decode=greedy)
