"""How much network the digits need: accuracy of the default config's teacher at full, half and quarter width.

    python benchmarks/digits_width.py

The set is easy, so ratios on it are no claim: a network a fraction of the size does as well without any compression.
"""

import tempfile
from pathlib import Path

from pipeline.runner import run

CONFIG = Path(__file__).parents[1] / "configs" / "digits" / "compress.yaml"
ONLY_BASELINE = "stages=[{use: export.onnx}]"


def main() -> None:
    """Print a line a width."""
    for width in (64, 32, 16):
        with tempfile.TemporaryDirectory() as runs:
            made = run(CONFIG, overrides=[f"model.width={width}", ONLY_BASELINE], runs=runs, track=False)
        if made.baseline:
            print(f"width {width}: {made.baseline.params:,} parameters, accuracy {made.baseline.score:.4f}")


if __name__ == "__main__":
    main()
