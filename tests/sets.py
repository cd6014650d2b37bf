"""Tiny sets as folders of parquet, as `datasets` writes and reads them, and models for them by their configurations."""

import random
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, List, Translation, Value
from PIL import Image as Pillow

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "hat", "red", "blue"]
WORDS += ["good", "bad", "nice", "poor"]
BERT: dict[str, Any] = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT |= {"intermediate_size": 32, "max_position_embeddings": 64}
MARIAN: dict[str, Any] = {"model_type": "marian", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
MARIAN |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
MARIAN |= {"max_position_embeddings": 64}


def sentences(count: int, seed: int = 0) -> list[str]:
    """Different sentences of 3 to 12 words."""
    draw, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        found[" ".join(draw.choices(WORDS, k=draw.randint(3, 12)))] = None
    return list(found)


def write(folder: Path, **parts: Dataset) -> str:
    """A folder with a parquet file for each part."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        part.to_parquet(folder / f"{name}.parquet")
    return str(folder)


def split(whole: Dataset, **sizes: int) -> dict[str, Dataset]:
    """Parts of these sizes, one after the other."""
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = whole.select(range(start, start + size))
        start += size
    return parts


def texts(count: int) -> Dataset:
    """A number, a sentence, and whether the word "good" is in it."""
    found = sentences(count)
    labels = [int("good" in text.split()) for text in found]
    features = Features({"idx": Value("int64"), "text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    return Dataset.from_dict({"idx": list(range(count)), "text": found, "label": labels}, features=features)


def pairs(count: int) -> Dataset:
    """Two sentences and a score from 0 to 5."""
    found, draw = sentences(2 * count), random.Random(1)
    scores = [round(5 * draw.random(), 2) for _ in range(count)]
    return Dataset.from_dict({"sentence1": found[::2], "sentence2": found[1::2], "score": scores})


def translations(count: int) -> Dataset:
    """A sentence in one column by language, and the same in capitals."""
    features = Features({"translation": Translation(["low", "up"])})
    rows = [{"low": text, "up": text.upper()} for text in sentences(count)]
    return Dataset.from_dict({"translation": rows}, features=features)


def images(count: int, size: int = 12) -> Dataset:
    """Noise in colour, and one of three classes."""
    draw = np.random.default_rng(0)
    pictures = [Pillow.fromarray(draw.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(count)]
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    return Dataset.from_dict({"image": pictures, "label": [i % 3 for i in range(count)]}, features=features)


def recordings(count: int) -> Dataset:
    """Tones of 500, 1000 and 1500 Hz with noise at 8 kHz, of different lengths, and which it is as a word."""
    draw = np.random.default_rng(0)
    names = ["low", "mid", "top"]
    waves = []
    for i in range(count):
        time = np.arange(draw.integers(2400, 4800)) / 8000
        tone = np.sin(2 * np.pi * 500 * (1 + i % 3) * time) + 0.1 * draw.normal(size=len(time))
        waves.append(tone.astype(np.float32))
    features = Features({"audio": List(Value("float32")), "sampling_rate": Value("int32"), "label": Value("string")})
    columns = {"audio": waves, "sampling_rate": [8000] * count, "label": [names[i % 3] for i in range(count)]}
    return Dataset.from_dict(columns, features=features)
