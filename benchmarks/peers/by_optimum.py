"""Optimum's ORTQuantizer, as its guide on quantization says: u8s8, a scale a channel, for CPUs with VNNI.

The ranges are the least and the largest values of the examples.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig
from samples import asked, examples


def main() -> None:
    """Write the quantized file."""
    given = asked(("static", "dynamic"))
    is_static = given.method == "static"
    quantizer = ORTQuantizer(given.file)
    settings = AutoQuantizationConfig.avx512_vnni(is_static=is_static, per_channel=True)
    ranges = None
    with TemporaryDirectory() as folder:
        if is_static:
            from datasets import Dataset

            rows = [{name: value[0] for name, value in row.items()} for row in examples(given.samples, "calibration")]
            dataset = Dataset.from_list(rows)
            ranges = quantizer.fit(
                dataset=dataset,
                calibration_config=AutoCalibrationConfig.minmax(dataset),
                operators_to_quantize=settings.operators_to_quantize,
                onnx_augmented_model_name=Path(folder) / "augmented.onnx",
            )
        quantizer.quantize(settings, folder, calibration_tensors_range=ranges)
        shutil.copy(Path(folder) / f"{given.file.stem}_quantized.onnx", given.out)


if __name__ == "__main__":
    main()
