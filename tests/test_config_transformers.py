"""One pipeline file makes a ViT and a DistilBERT of `transformers` smaller, at their accuracy."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline import model as models
from pipeline.runner import run

FOLDER = Path(__file__).parents[1] / "configs" / "transformers"
TEXT = ["task.use=../text/data.py", "model.use=models.py:distilbert"]
SMALL = ["model.layers=2", "model.hidden=32", "model.heads=4", "model.feed_forward=64", "stages.0.round_to=1"]
QUICK = ["baseline.0.epochs=12", "baseline.0.learning_rate=0.003", "stages.1.epochs=4", "stages.4.rounds=2"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "chance"), [([], 0.1), (TEXT, 0.25)], ids=["vit", "distilbert"])
def test_half_the_cost_keeps_the_accuracy_of_both(kind: list[str], chance: float, tmp_path: Path) -> None:
    record = run(FOLDER / "compress.yaml", overrides=[*SMALL, *QUICK, *kind], runs=tmp_path, track=False)
    assert record.baseline
    folder = Path(record.folder)
    pruned, distilled, exported, quantized = record.stages[:4]

    assert record.baseline.score > 2 * chance
    assert quantized.score > 0.95 * record.baseline.score
    assert pruned.macs <= 0.5 * record.baseline.macs
    assert pruned.size_bytes < 0.8 * record.baseline.size_bytes
    assert quantized.size_bytes < 0.5 * exported.size_bytes == 0.5 * distilled.size_bytes
    heads: Any = pruned.reports["transformer"]
    before, after = ([own[when] for own in heads["heads"].values()] for when in ("before", "after"))
    assert before == [4, 4]
    assert sum(after) < 8
    small, file = (models.load(folder / stage.folder, FOLDER) for stage in (distilled, exported))
    assert counted(small.module) == after
    assert torch.allclose(*(model.predict(small.example)["logits"] for model in (small, file)), atol=1e-4)


def counted(module: nn.Module) -> list[int]:
    """Heads of each attention, as its module counts them."""
    attentions = [part for part in module.modules() if hasattr(part, "attention_head_size")]
    return [getattr(part, "num_attention_heads", None) or part.n_heads for part in attentions]
