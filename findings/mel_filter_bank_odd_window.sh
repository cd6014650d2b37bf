#!/usr/bin/env bash
# transformers 4.57.6: mel_filter_bank places the bins of an FFT of odd length wrongly.
#
# Behaviour: the k-th bin of a real FFT of N samples at rate R lies at k * R / N. For an odd N the highest bin, (N - 1) / 2,
# lies at R / 2 * (N - 1) / N, below half the rate; `mel_filter_bank` spreads its bins from 0 to R // 2 all the same.
# So its filters differ from those on the bins' own frequencies, by up to 0.08 for N = 401. Even lengths are right.
# A window of 25 ms at 22,050 Hz has 551 samples, an odd number.
# Output seen: "even 400: 0.0000, odd 401: 0.0813" (the largest difference from the triangular filters of the HTK Book).
#
# Shrinkline's own filters (pipeline/tasks/huggingface/audio.py) stand on the bins' own frequencies.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install transformers==4.57.6 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import numpy as np
from transformers.audio_utils import mel_filter_bank

RATE, LOW, HIGH, COUNT = 16000, 125.5, 7600.0, 80


def mel(hertz):
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def triangles(size):
    """(bins, filters): triangles in hertz between edges that are even in mel, at the frequencies of an FFT's bins."""
    edges = 700 * (10 ** (np.linspace(mel(LOW), mel(HIGH), COUNT + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(size, 1 / RATE)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rising, falling), 0, None)


def difference(size):
    theirs = mel_filter_bank(size // 2 + 1, COUNT, LOW, HIGH, RATE, norm=None, mel_scale="htk")
    return np.abs(theirs - triangles(size)).max()


even, odd = difference(400), difference(401)
print(f"even 400: {even:.4f}, odd 401: {odd:.4f}")
raise SystemExit(0 if even < 1e-6 and odd > 0.05 else "the behaviour has changed")
PY
