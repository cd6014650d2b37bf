"""The loop of onnxruntime_perf_test, which the wheels do not have, through the Python interface.

    python benchmarks/planted/perf_test.py FILE.onnx INPUTS.npz THREADS SECONDS

One run to warm up; then runs, one after the other, on values that are made once, each timed with a steady clock, for so
many seconds. Prints the median in milliseconds.
"""

import sys
from statistics import median
from time import perf_counter

import numpy as np
import onnxruntime


def main(path: str, inputs: str, threads: int, seconds: float) -> float:
    """The median of a run in milliseconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    with np.load(inputs, allow_pickle=False) as arrays:
        values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(arrays[name]) for name in arrays.files}
    names = [node.name for node in session.get_outputs()]
    session.run_with_ort_values(names, values)
    times, end = [], perf_counter() + seconds
    while perf_counter() < end:
        began = perf_counter()
        session.run_with_ort_values(names, values)
        times.append(perf_counter() - began)
    return median(times) * 1e3


if __name__ == "__main__":
    path, inputs, threads, seconds = sys.argv[1:5]
    print(main(path, inputs, int(threads), float(seconds)))
