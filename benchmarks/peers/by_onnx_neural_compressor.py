"""onnx-neural-compressor, as the section on static quantization of its own page says, and with the dynamic config.

Its defaults are uint8 activations and int8 weights; a scale a channel and the
number of calibration examples are told.
"""

from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import config, quantize
from samples import asked, examples


class Reader(data_reader.CalibrationDataReader):
    """The examples, one after the other."""

    def __init__(self, rows: list) -> None:
        self.rows = rows
        self.rewind()

    def get_next(self) -> dict | None:
        """The next one."""
        return next(self.iterator, None)

    def rewind(self) -> None:
        """Begin again."""
        self.iterator = iter(self.rows)


def main() -> None:
    """Write the quantized file."""
    given = asked(("static", "dynamic"))
    if given.method == "dynamic":
        settings = config.DynamicQuantConfig(per_channel=True)
    else:
        rows = examples(given.samples, "calibration")
        settings = config.StaticQuantConfig(
            calibration_data_reader=Reader(rows), per_channel=True, calibration_sampling_size=len(rows)
        )
    quantize(str(given.file), str(given.out), settings)


if __name__ == "__main__":
    main()
