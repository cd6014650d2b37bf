"""Olive, as its documentation on ONNX quantization and on data in a script of one's own says: u8s8, a scale a channel.

Olive ends with 0 where a pass fails: no file is an error here.
"""

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from olive.data.registry import Registry
from olive.workflows import run
from samples import Example, asked, examples


class Rows:
    """The calibration examples as Olive takes a dataset: (inputs without the batch, label)."""

    def __init__(self, rows: list[Example]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Example, int]:
        return {name: value[0] for name, value in self.rows[index].items()}, 0


@Registry.register_dataset()
def of_file(path: str, **_: Any) -> Rows:
    """Olive calls it by its name."""
    return Rows(examples(Path(path), "calibration"))


def main() -> None:
    """Write the quantized file."""
    given = asked(("static", "dynamic"))
    passes: dict[str, Any] = {"type": "OnnxDynamicQuantization", "precision": "int8", "per_channel": True}
    if given.method == "static":
        passes |= {"type": "OnnxStaticQuantization", "activation_type": "uint8", "data_config": "calibration"}
    with TemporaryDirectory() as folder:
        os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
        run(
            {
                "input_model": {"type": "ONNXModel", "model_path": str(given.file)},
                "data_configs": [
                    {
                        "name": "calibration",
                        "type": "DataContainer",
                        "load_dataset_config": {"type": "of_file", "params": {"path": str(given.samples)}},
                        "dataloader_config": {"params": {"batch_size": 1}},
                    }
                ],
                "passes": {"quantization": passes},
                "cache_dir": f"{folder}/cache",
                "output_dir": f"{folder}/out",
            }
        )
        files = list(Path(folder, "out").rglob("*.onnx"))
        if len(files) != 1:
            sys.exit(f"Olive wrote {len(files)} ONNX files")
        shutil.copy(files[0], given.out)


if __name__ == "__main__":
    main()
