"""Recordings and classes; as a wave, or as the logarithm of the energy in bands of pitch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from math import gcd
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.batches import Inputs
from pipeline.base.code.extras import install
from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.columns import Columns, types_of
from pipeline.tasks.huggingface.rows import DatasetTask, Encoding, dataset_task, encoded_parts
from pipeline.tasks.huggingface.settings import Count, Settings
from pipeline.tasks.huggingface.source import Parts
from pipeline.tasks.huggingface.targets import TARGET, Classes, classes, of_classes

if TYPE_CHECKING:
    from datasets import Dataset

VALUES, RATE = "input_values", "sampling_rate"
FLOOR = 1e-6  # below every energy, so that silence has a logarithm

Wave = NDArray[np.float32]


class Audio(Settings):
    """The keys of audio classification."""

    sampling_rate: Count = Field(16000, description="in Hz; recordings of another rate are resampled")
    seconds: float = Field(gt=0, description="of a recording: longer ones are cut at the end, shorter ones get silence")
    features: Literal["log_mel", "wave"] = Field("log_mel", description="what is fed")
    layout: Literal["image", "frames"] = Field(
        "image",
        description="of log_mel: (1, mels, frames), or (frames, mels) as the Audio Spectrogram Transformer takes it",
    )
    mels: int = Field(40, ge=4, description="bands of pitch")
    window: float = Field(0.025, gt=0, description="seconds that each spectrum is of, under a Hann window")
    hop: float = Field(0.01, gt=0, description="seconds from one spectrum to the next")
    low: float = Field(0.0, ge=0, description="lower end of the lowest band, in Hz")
    high: float | None = Field(None, gt=0, description="upper end of the highest; half the sampling_rate")
    mean: float | None = Field(None, description="taken off all values; each recording's own unless given")
    std: float | None = Field(None, gt=0, description="what the rest is divided by; likewise")

    @model_validator(mode="after")
    def _bands_lie_within(self) -> Self:
        high = self.sampling_rate / 2 if self.high is None else self.high
        if not self.low < high <= self.sampling_rate / 2:
            raise ValueError(f"low < high <= {self.sampling_rate / 2:g}, half the sampling_rate")
        if (self.mean is None) != (self.std is None):
            raise ValueError("both `mean` and `std`, or neither")
        if self.hop * self.sampling_rate < 1 or self.window * self.sampling_rate < 2:
            raise ValueError("`hop` and `window` of a sample and of two at least")
        if self.samples <= round(self.window * self.sampling_rate) // 2:
            raise ValueError("`seconds` longer than half a window")
        width = round(self.window * self.sampling_rate)
        if not mel_bands(width, self.mels, self.sampling_rate, self.low, high).sum(1).all():
            raise ValueError(f"fewer than {self.mels} `mels`, or a longer `window`: in some bands no frequency falls")
        return self

    @property
    def samples(self) -> int:
        """Of each recording."""
        return round(self.seconds * self.sampling_rate)


def classification(parts: Parts, columns: Columns, settings: Audio) -> DatasetTask:
    """Single-label classification of recordings `input_values`: accuracy is the score."""
    column, target = columns.inputs[0], classes(parts.whole, columns.target)
    types = types_of(parts.train.features)
    numbers = types[column] == "numbers"
    rate = RATE if numbers and types.get(RATE) == "integer" else None
    encode, names = partial(encode_audio, settings, column, rate, target), (column, target.column)
    key = [column, rate, target.key, settings.model_dump(mode="json", exclude=set(Settings.model_fields))]
    kept = {VALUES: "float32[]", TARGET: target.type}
    encoding = Encoding(encode, (*names, rate) if rate else names, kept, key, batch=100)
    example = values_of(torch.zeros(settings.samples), settings)
    if numbers and not rate:
        note = f"`{column}` is taken to be of {settings.sampling_rate} Hz"
        parts = replace(parts, notes=(*parts.notes, note))
    rows = encoded_parts(parts.each(partial(_undecoded, column)), encoding, partial(read_audio, example.shape))
    words = in_words(settings, tuple(example.shape))
    return dataset_task(parts, settings, rows, **of_classes(target), preprocessing=words, kind="audio_classification")


def in_words(settings: Audio, shape: tuple[int, ...]) -> str:
    """How a recording becomes what the model is fed."""
    s = settings
    text = f"the first {s.seconds:g} s at {s.sampling_rate} Hz, silence after the end"
    if s.features == "log_mel":
        high = s.sampling_rate / 2 if s.high is None else s.high
        text += f"; log(mel energy + {FLOOR:g}) of {s.mels} bands from {s.low:g} to {high:g} Hz, Hann windows of "
        text += f"{s.window:g} s every {s.hop:g} s"
    own = "its own mean and standard deviation" if s.mean is None else f"mean {s.mean:g} and deviation {s.std:g}"
    return f"{text}; normalized by {own}; as {shape}"


def values_of(wave: Tensor, settings: Audio) -> Tensor:
    """What the model is fed of a recording (samples,): a wave (samples,), or bands (1, mels, frames) or turned."""
    values = wave if settings.features == "wave" else log_mel(wave, settings)
    mean, std = settings.mean, settings.std
    if mean is None or std is None:
        values = (values - values.mean()) / values.std().clamp(min=FLOOR)
    else:
        values = (values - mean) / std
    if settings.features == "wave":
        return values
    return values[None] if settings.layout == "image" else values.T


def log_mel(wave: Tensor, settings: Audio) -> Tensor:
    """The logarithm of the energy of a wave (samples,) in bands of pitch: (mels, 1 + samples // hop).

    Windows stand around each multiple of the hop; at both ends the wave is mirrored.

    Reference:
        Stevens, Volkmann and Newman: A scale for the measurement of the psychological magnitude pitch, 1937; the bands
        as Young et al. have them in The HTK Book, 2006, section 5.4.
    """
    width, hop = round(settings.window * settings.sampling_rate), round(settings.hop * settings.sampling_rate)
    window = torch.hann_window(width, dtype=wave.dtype)
    spectrum = torch.stft(wave, width, hop, window=window, center=True, return_complex=True)
    high = settings.sampling_rate / 2 if settings.high is None else settings.high
    bands = mel_bands(width, settings.mels, settings.sampling_rate, settings.low, high)
    return (bands.to(wave.dtype) @ spectrum.abs() ** 2 + FLOOR).log()


def mel_bands(width: int, mels: int, rate: int, low: float, high: float) -> Tensor:
    """Triangles (mels, width // 2 + 1) of height 1 with corners evenly spaced in mel, m = 2595 log10(1 + f / 700)."""
    first, last = (2595 * np.log10(1 + frequency / 700) for frequency in (low, high))
    corners = 700 * (10 ** (np.linspace(first, last, mels + 2) / 2595) - 1)
    frequencies = np.arange(width // 2 + 1) * rate / width
    rising = (frequencies - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - frequencies) / (corners[2:] - corners[1:-1])[:, None]
    return torch.from_numpy(np.maximum(0, np.minimum(rising, falling)))


def _undecoded(column: str, rows: "Dataset") -> "Dataset":
    """The rows with the files of a column of recordings as bytes, which we read ourselves."""
    from datasets import Audio as Feature

    is_audio = isinstance(rows.features[column], Feature)
    return rows.cast_column(column, Feature(decode=False)) if is_audio else rows


def encode_audio(
    settings: Audio, column: str, rate: str | None, target: Classes, rows: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    """Recordings as what the model is fed, and their labels; `rate` is the column of their sampling rates."""
    rates = rows[rate] if rate else [settings.sampling_rate] * len(rows[column])
    if any(value is None for value in rows[column]):
        raise ConfigError(f"a row has no recording in `{column}`", fix="Leave such rows out of the dataset")
    waves = [wave_of(value, own_rate, settings) for value, own_rate in zip(rows[column], rates, strict=True)]
    values = [values_of(wave, settings).flatten().numpy() for wave in waves]
    return {VALUES: values, TARGET: target(rows[target.column])}


def wave_of(value: Any, rate: int, settings: Audio) -> Tensor:
    """A recording, numbers or a file, as a wave (samples,) at the rate and of the length of the settings."""
    wave, rate = sound(value) if isinstance(value, dict) else (np.asarray(value, dtype=np.float32), rate)
    wave = resampled(wave, rate, settings.sampling_rate)[: settings.samples]
    return F.pad(torch.from_numpy(wave), (0, settings.samples - len(wave)))


def sound(file: Mapping[str, Any]) -> tuple[Wave, int]:
    """A wave (samples,), of several channels the mean, and its sampling rate.

    Args:
        file: {"bytes": its content or None, "path": where it is}.

    Raises:
        ConfigError: soundfile is not installed, or cannot read the file.
    """
    try:
        import soundfile
    except ImportError as error:
        fix = install(extra="audio")
        raise ConfigError("reading sound files needs soundfile, which is not installed", fix=fix) from error
    content = file.get("bytes")
    try:
        wave, rate = soundfile.read(BytesIO(content) if content else file["path"], dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise ConfigError(f"a recording cannot be read: {error}", where=str(file.get("path") or "")) from error
    return wave.mean(axis=1), int(rate)


def resampled(wave: Wave, rate: int, wanted: int) -> Wave:
    """A wave (samples,) at another sampling rate, by a filter in several phases."""
    if rate == wanted:
        return wave
    from scipy.signal import resample_poly

    common = gcd(rate, wanted)
    return np.asarray(resample_poly(wave, wanted // common, rate // common), dtype=np.float32)


def read_audio(shape: Sequence[int], row: Mapping[str, Any]) -> tuple[Inputs, int]:
    """An example of a row: `input_values` float32 of a shape, and the class."""
    values = torch.from_numpy(row[VALUES].values.to_numpy().copy())
    return {VALUES: values.reshape(*shape)}, row[TARGET].as_py()
