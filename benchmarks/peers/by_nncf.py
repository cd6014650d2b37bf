"""NNCF on an ONNX file, as its documentation on quantization after training, plain and with accuracy control, says.

All give an ONNX file. A validation function is handed an `onnx.ModelProto`, and runs it as it likes; here in ONNX
Runtime, an example at a time. In NNCF's own example it gives the metric alone, and is then called for each example by
itself, a session each time: `example`. `accuracy` gives each example's share too, which may be given and is faster.
"""

from collections.abc import Iterable
from functools import partial

import nncf
import numpy as np
import onnx
import onnxruntime
from samples import asked, examples, is_text, labels


def main() -> None:
    """Write the quantized file."""
    given = asked(("static", "accuracy", "example"))
    model = onnx.load(given.file)
    calibration = examples(given.samples, "calibration")
    settings = {"subset_size": len(calibration)}
    if is_text(calibration):
        settings["model_type"] = nncf.ModelType.TRANSFORMER
    dataset = nncf.Dataset(calibration)
    if given.method == "static":
        quantized = nncf.quantize(model, dataset, **settings)
    else:
        rows = list(zip(examples(given.samples, "validation"), labels(given.samples, "validation"), strict=True))
        validate = partial(accuracy, by_example=given.method == "accuracy")
        quantized = nncf.quantize_with_accuracy_control(
            model, dataset, nncf.Dataset(rows), validate, max_drop=given.drop, **settings
        )
    onnx.save(quantized, given.out)


def accuracy(model: onnx.ModelProto, rows: Iterable, by_example: bool) -> tuple[float, list[float] | None]:
    """The share of right answers, and whether each is."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    right = [float(session.run(None, inputs)[0].argmax() == label) for inputs, label in rows]
    return float(np.mean(right)), right if by_example else None


if __name__ == "__main__":
    main()
