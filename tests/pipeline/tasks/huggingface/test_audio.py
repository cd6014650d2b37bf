"""Recordings: cut, resampled and turned into bands of pitch, against transformers' own and closed forms."""

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Audio as Sounds
from datasets import Dataset
from transformers.audio_utils import mel_filter_bank, spectrogram

from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.audio import Audio, log_mel, mel_bands, resampled, sound
from pipeline.tasks.huggingface.huggingface import task
from tests import sets


def asked(**arguments: object) -> Audio:
    return Audio.model_validate({"data": "set", "sampling_rate": 8000, "seconds": 0.5, **arguments})


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return sets.write(tmp_path / "recordings", **sets.split(sets.recordings(30), train=24, test=6))


@pytest.mark.parametrize(("width", "mels", "low", "high"), [(400, 40, 0.0, 8000.0), (512, 23, 20.0, 7600.0)])
def test_the_bands_are_the_field_s_triangles(width: int, mels: int, low: float, high: float) -> None:
    theirs = mel_filter_bank(width // 2 + 1, mels, low, high, 16000, norm=None, mel_scale="htk")
    np.testing.assert_allclose(mel_bands(width, mels, 16000, low, high).numpy(), theirs.T, atol=1e-9)


def test_a_window_of_an_odd_length_has_its_own_frequencies() -> None:
    """25 ms at 22,050 Hz; transformers 4.57.6 spreads such bins up to half the rate: findings/mel_filter_bank_*.sh."""
    edges = 700 * (10 ** (np.linspace(0.0, 2595 * np.log10(1 + 8000 / 700), 42) / 2595) - 1)
    bins = np.fft.rfftfreq(551, 1 / 22050)
    expected = [np.interp(bins, edges[i : i + 3], [0.0, 1.0, 0.0], left=0.0, right=0.0) for i in range(40)]
    np.testing.assert_allclose(mel_bands(551, 40, 22050, 0.0, 8000.0).numpy(), expected, atol=1e-6)


def test_the_logarithm_of_the_energies_is_that_of_another_implementation() -> None:
    wave = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    ours = log_mel(wave, asked())
    window = torch.hann_window(200).double().numpy()
    bands = mel_filter_bank(101, 40, 0.0, 4000.0, 8000, norm=None, mel_scale="htk")
    theirs = spectrogram(wave.double().numpy(), window, 200, 80, power=2.0, mel_filters=bands, mel_floor=0.0)
    assert ours.shape == (40, 1 + 4000 // 80)
    np.testing.assert_allclose(ours.numpy(), np.log(theirs + 1e-6), atol=1e-3)


def test_a_tone_is_loudest_in_its_own_band() -> None:
    time = torch.arange(4000) / 8000
    for frequency in (500.0, 1000.0, 3000.0):
        loudest = log_mel(torch.sin(2 * torch.pi * frequency * time), asked()).mean(1).argmax()
        assert mel_bands(200, 40, 8000, 0.0, 4000.0)[loudest, round(frequency / 40)] > 0


def test_resampling_keeps_a_tone() -> None:
    def tone(rate: int) -> np.ndarray:
        return np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate).astype(np.float32)

    np.testing.assert_allclose(resampled(tone(16000), 16000, 8000)[100:-100], tone(8000)[100:-100], atol=2e-2)
    assert resampled(tone(8000), 8000, 8000) is not None


def test_recordings_become_examples_of_one_length(folder: str) -> None:
    found, rows = task(data=folder, sampling_rate=8000, seconds=0.5), sets.recordings(30)
    assert found.labels == ("low", "mid", "top")
    inputs, label = found.test[0]
    assert inputs["input_values"].shape == (1, 40, 51)
    assert label == 0
    wave = torch.zeros(4000)
    given = torch.tensor(rows[24]["audio"])[:4000]
    wave[: len(given)] = given
    expected = log_mel(wave, asked())
    expected = (expected - expected.mean()) / expected.std()
    torch.testing.assert_close(inputs["input_values"][0], expected, atol=1e-5, rtol=1e-5)
    fixed = task(data=folder, sampling_rate=8000, seconds=0.5, mean=-3, std=2, layout="frames", mels=20)
    assert fixed.test[0][0]["input_values"].shape == (51, 20)
    torch.testing.assert_close(
        fixed.test[0][0]["input_values"].T, (log_mel(wave, asked(mels=20)) + 3) / 2, atol=1e-5, rtol=1e-5
    )
    raw = task(data=folder, sampling_rate=8000, seconds=0.5, features="wave", mean=0, std=1)
    torch.testing.assert_close(raw.test[0][0]["input_values"], wave)


def test_a_rate_that_is_nowhere_is_noted(tmp_path: Path) -> None:
    rows = sets.recordings(30).remove_columns("sampling_rate")
    found = task(data=sets.write(tmp_path / "bare", train=rows), sampling_rate=8000, seconds=0.5)
    assert "`audio` is taken to be of 8000 Hz" in found.notes


def wav(wave: np.ndarray, rate: int) -> bytes:
    import soundfile

    content = BytesIO()
    soundfile.write(content, wave, rate, format="WAV", subtype="FLOAT")
    return content.getvalue()


def test_sound_files_are_read_and_channels_averaged(tmp_path: Path) -> None:
    both = np.random.default_rng(0).normal(size=(800, 2)).astype(np.float32)
    wave, rate = sound({"bytes": wav(both, 4000), "path": None})
    assert rate == 4000
    np.testing.assert_allclose(wave, both.mean(1), atol=1e-6)
    files = [{"bytes": wav(both[i:], 8000), "path": None} for i in range(30)]
    rows = Dataset.from_dict({"audio": files, "label": ["x", "y"] * 15}).cast_column("audio", Sounds())
    folder = sets.write(tmp_path / "files", train=rows)
    found = task(data=folder, sampling_rate=8000, seconds=0.1, features="wave", mean=0, std=1)
    assert (found.kind, found.train[0][0]["input_values"].shape) == ("audio_classification", (800,))


def test_a_folder_of_sound_files_is_read_without_another_decoder(tmp_path: Path) -> None:
    for name in ("low", "high"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(20):
            (tmp_path / "train" / name / f"{i}.wav").write_bytes(wav(np.zeros((800, 1), dtype=np.float32), 8000))
    found = task(data=str(tmp_path), sampling_rate=8000, seconds=0.1, features="wave", mean=0, std=1, limit=30)
    assert (found.kind, found.labels) == ("audio_classification", ("high", "low"))
    assert {int(found.train[i][1]) for i in range(len(found.train))} == {0, 1}
    assert found.train[0][0]["input_values"].shape == (800,)


def test_a_file_that_is_no_sound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"a recording cannot be read"):
        sound({"bytes": b"nothing", "path": "a.wav"})
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ConfigError, match=r"soundfile, which is not installed\. pip install 'shrinkline\[audio\]'"):
        sound({"bytes": b"nothing", "path": None})


@pytest.mark.parametrize(("arguments", "message"), [
    ({"high": 5000}, r"low < high <= 4000"),
    ({"mean": 1.0}, r"both `mean` and `std`"),
    ({"seconds": 0.01}, r"longer than half a window"),
    ({"mels": 80}, r"fewer than 80 `mels`"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(folder: str, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task(**{"data": folder, "kind": "audio_classification", "sampling_rate": 8000, "seconds": 0.5, **arguments})
