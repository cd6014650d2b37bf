"""Free Spoken Digit Dataset: ten digits by six speakers, 8 kHz, as log-mel spectrograms of a fixed size."""

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from pipeline.base.batches import Inputs, Outputs
from pipeline.errors import ConfigError
from pipeline.task import Split, Task, correct, scored
from pipeline.tasks import tables

RATE = 8000  # samples a second
LENGTH = 8000  # samples that are kept: longer recordings are cut at the end, shorter ones lie in the middle of silence
WINDOW, HOP = 256, 128  # samples of a frame, 32 ms, and from one to the next
BANDS, FRAMES = 32, LENGTH // HOP + 1
LOWEST = 60.0  # Hz
RANGE = 6.0  # powers of ten below the loudest point that count as silence: 60 dB
TEST, VALIDATION = 5, 3  # recordings of each speaker and digit
TEMPO, WARP, LATER, HIGHER = 0.12, 0.08, 0.12, 0.06  # standard deviations, as shares; of half the width or height
GAP, NARROW = 10, 5  # frames and bands, the most that are blanked


def task(
    path: str, speaker: str | None = None, limit: int | None = None, augment: bool = False, smoothing: float = 0.0
) -> Task:
    """Single-label classification of spoken digits, from `input` (1, 32 bands, 63 frames) in 0 to 1.

    Of each speaker and digit, in the order of the rows, the last five recordings are the test split and the first
    three the validation split. Where the rows are in the order of the files' names those are the numbers 5 to 9 (its
    authors' own test has the first ones, 0 to 4) and 10 to 12.

    Args:
        path: a name on the Hugging Face hub, or a folder of parquet files, with the columns `audio` (a list of floats
            in -1 to 1), `sampling_rate` (8000), `label` and `speaker`.
        speaker: test on all recordings of this speaker, and train and validate on the others'.
        limit: recordings read at most, for small runs.
        augment: train on spectrograms that are stretched and moved in time and pitch, with parts blanked.
        smoothing: share of each label that the loss gives to all digits alike, 0 to below 1.

    Raises:
        ConfigError: there is no such data, it has other columns, another rate, or no such speaker.
    """
    rows = _rows(path)
    rows = rows.select(range(min(len(rows), limit or len(rows))))
    speakers, labels = list(rows["speaker"]), list(rows["label"])
    if speaker is not None and speaker not in speakers:
        found = f"`speaker` is {speaker}"
        raise ConfigError(found, where="task", expected=f"one of {', '.join(sorted(set(speakers)))}")
    clips = (np.array(clip, dtype=np.float32) for clip in rows.with_format("numpy")["audio"])
    spectra = torch.stack([spectrum(torch.from_numpy(clip)) for clip in clips])
    whole = Split(TensorDataset(spectra, torch.tensor(labels)))
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for row, part in enumerate(_parts(speakers, labels, speaker)):
        parts[part].append(row)
    return Task(
        **{part: whole.select(chosen) for part, chosen in parts.items()},
        augment=varied if augment else None,
        loss=partial(smoothed, smoothing),
        score=correct,
        logits=True,
        labels=[str(digit) for digit in range(10)],
        preprocessing=f"8 kHz, 1 s, log-mel of {BANDS} bands and {FRAMES} frames by `spectrum` of configs/fsdd/data.py",
    )


def smoothed(smoothing: float, outputs: Outputs, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (N, 10) against smoothed labels (N,).

    Reference: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna: Rethinking the Inception Architecture for Computer Vision,
        2015, arXiv:1512.00567, section 7.
    """
    return F.cross_entropy(scored(outputs), targets, label_smoothing=smoothing)


def spectrum(clip: Tensor) -> Tensor:
    """Log-mel power (1, BANDS, FRAMES): 1 is the clip's loudest point, 0 is 60 dB and more below it.

    Args:
        clip: (samples,) at 8 kHz.
    """
    clip = clip[:LENGTH]
    before = (LENGTH - len(clip)) // 2
    clip = F.pad(clip, (before, LENGTH - len(clip) - before))
    window = torch.hann_window(WINDOW)
    power = torch.stft(clip, WINDOW, HOP, window=window, return_complex=True).abs().square()
    bands = MEL @ power
    level = (bands / bands.max().clamp(min=1e-10)).clamp(min=10**-RANGE).log10()
    return (1 + level / RANGE).unsqueeze(0)


def varied(inputs: Inputs, seed: int, view: int) -> Inputs:
    """The spectrogram slower or faster, earlier or later, higher or lower, with a gap in time and one in pitch.

    Args:
        inputs: one example's.
        seed: the example's own.
        view: every view is another.

    Reference:
        Jaitly and Hinton: Vocal Tract Length Perturbation (VTLP) improves speech recognition, 2013, section 3.
        Park et al.: SpecAugment, 2019, arXiv:1904.08779, section 2.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + view) % 2**63)
    tempo, warp, later, higher = torch.randn(4, generator=generator).tolist()
    moves = torch.tensor([[1 + TEMPO * tempo, 0, LATER * later], [0, 1 + WARP * warp, HIGHER * higher]])
    image = inputs["input"].unsqueeze(0)
    grid = F.affine_grid(moves.unsqueeze(0), list(image.shape), align_corners=False)
    moved = F.grid_sample(image, grid, align_corners=False).squeeze(0)
    start, length, low, height = (torch.rand(4, generator=generator) * torch.tensor([FRAMES, GAP, BANDS, NARROW])).int()
    moved[..., start : start + length] = 0
    moved[:, low : low + height] = 0
    return {"input": moved}


def _mel() -> Tensor:
    """Triangles that are evenly spaced in mel, (BANDS, WINDOW / 2 + 1): power by frequency to power by band."""
    ends = 2595 * torch.log10(1 + torch.tensor([LOWEST, RATE / 2]) / 700)
    corners = 700 * (10 ** (torch.linspace(*ends.tolist(), BANDS + 2) / 2595) - 1)
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    low, peak, high = (corners[i : i + BANDS].unsqueeze(1) for i in range(3))
    return torch.minimum((frequencies - low) / (peak - low), (high - frequencies) / (high - peak)).clamp(min=0)


MEL = _mel()


def _rows(path: str) -> Any:
    """All recordings: the train part, for there may be no other."""
    rows = tables.rows(tables.parts(path)["train"], ("audio", "sampling_rate", "label", "speaker"), path)
    if rates := set(rows["sampling_rate"]) - {RATE}:
        raise ConfigError(f"{path} has recordings at {min(rates)} Hz", where="task", expected=f"{RATE} Hz")
    return rows


def _parts(speakers: list[str], labels: list[int], left_out: str | None) -> list[str]:
    """To which split each row belongs."""
    sizes, seen = Counter(zip(speakers, labels, strict=True)), Counter[tuple[str, int]]()
    parts = []
    for group in zip(speakers, labels, strict=True):
        place = seen[group]
        seen[group] += 1
        tested = place >= sizes[group] - TEST if left_out is None else group[0] == left_out
        parts.append("test" if tested else "validation" if place < VALIDATION else "train")
    return parts
