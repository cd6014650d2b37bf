"""Time in which a teacher gives its logits in bf16 over that in fp32, for teachers of the configs, untrained.

    python benchmarks/teacher_precision.py [--rounds 7] [--threads 1]

Both take turns. Prints the median of the ratios and the least and the most of them.
"""

import time
from functools import partial
from pathlib import Path

import torch
from in_turns import compare, rounds
from transformers import BertConfig, BertForSequenceClassification

from pipeline.base.use import Reference
from pipeline.model import TorchModel
from stages.kd.teacher import Teacher
from stages.kd.teacher_config import TeacherConfig

CONFIGS = Path(__file__).parents[1] / "configs"
BATCH, TIMES = 64, 3


def teachers() -> dict[str, TorchModel]:
    """Each with a batch as its example; the encoder has the shape of MiniLM-L6, the texts 16 tokens."""
    encoder = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    ids = torch.randint(1000, 30000, (BATCH, 16))
    texts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    made = TorchModel(BertForSequenceClassification(encoder), texts, Reference(use="transformers:Bert"))
    networks = {
        "cifar10, ResNet-56": ("cifar10", "resnet56", 3, 32),
        "fashion_mnist": ("fashion_mnist", "FashionNet", 1, 28),
    }
    found = {"sst2, MiniLM-L6": made}
    for name, (folder, use, channels, side) in networks.items():
        builder = Reference(use=f"models.py:{use}", folder=CONFIGS / folder)
        found[name] = TorchModel.build(builder, {"input": torch.randn(BATCH, channels, side, side)})
    return found


def main() -> None:
    """Print the table."""
    count = rounds(__doc__)
    for name, model in teachers().items():
        exact, rough = (Teacher(TeacherConfig(use="incoming"), model, precision=kind) for kind in ("no", "bf16"))
        compare(name, count, partial(seconds, rough, model), partial(seconds, exact, model))


def seconds(teacher: Teacher, model: TorchModel) -> float:
    """Wall time of some batches."""
    begin = time.perf_counter()
    for _ in range(TIMES):
        teacher.logits(model.example)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
