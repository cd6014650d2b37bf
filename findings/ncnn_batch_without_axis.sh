#!/usr/bin/env bash
# ncnn 1.0.20261020: a batch of images that is given as an array of four axes is run as one image, without an error.
#
# Behaviour: ncnn.Mat takes a numpy array of shape (4, 1, 8, 8), and input() and extract() return 0, but the output is one
# row, which is none of the four. With `batch_index=0`, on the way in and out, there are four right rows.
# Output seen: "without: 1 row, wrong; with batch_index=0: 4 rows, right".
#
# Shrinkline gives the axis (stages/benchmark/runners/edge/ncnn.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install --no-deps ncnn==1.0.20261020 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import ncnn
import numpy as np

# The mean of what a convolution of 3 x 3 ones gives.
lines = ["7767517", "3 3", "Input in0 0 1 in0", "Convolution conv 1 1 in0 c 0=1 1=3 6=9", "Pooling mean 1 1 c out0 0=1 4=1"]
open("net.param", "w").write("\n".join(lines) + "\n")
open("net.bin", "wb").write(bytes(4) + np.ones(9, np.float32).tobytes())
net = ncnn.Net()
assert net.load_param("net.param") == 0
assert net.load_model("net.bin") == 0
x = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
windows = np.lib.stride_tricks.sliding_window_view(x[:, 0], (3, 3), axis=(1, 2))
means = windows.sum(axis=(3, 4)).mean(axis=(1, 2))


def answer(**options):
    extractor = net.create_extractor()
    assert extractor.input("in0", ncnn.Mat(x, **options).clone()) == 0
    code, output = extractor.extract("out0")
    assert code == 0
    return np.array(output.numpy(**options)).reshape(-1)


def told(values):
    right = values.shape == means.shape and np.abs(values - means).max() < 1e-3
    return f"{len(values)} row{'s' * (len(values) > 1)}, {'right' if right else 'wrong'}"


seen = f"without: {told(answer())}; with batch_index=0: {told(answer(batch_index=0))}"
print(seen)
raise SystemExit(0 if seen.startswith("without: 1 row, wrong") and seen.endswith("4 rows, right") else "the behaviour has changed")
PY
