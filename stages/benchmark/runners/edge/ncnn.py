"""ncnn on the CPU: `model.param` and `model.bin`, which pnnx makes of an ONNX file."""

import subprocess
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, Step


def convert(spec: Spec) -> None:
    """Write the files of `model` of the spec from its ONNX file `source`, with inputs of its `shapes`.

    Of nodes that ncnn has no layer for pnnx writes some all the same, so the files are loaded.
    """
    target = Path(spec["model"])
    package = util.find_spec("pnnx")  # importing it would import torch
    if package is None or package.origin is None:
        sys.exit("pnnx is not installed")
    files = {"ncnnparam": target.with_suffix(".param"), "ncnnbin": target.with_suffix(".bin")}
    others = ("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx", "ncnnpy")
    options = [f"{option}={path}" for option, path in files.items()]
    options += [f"{option}={target.with_name(option)}" for option in others]
    tool = Path(package.origin).with_name("pnnx")
    code = subprocess.call([tool, spec["source"], f"inputshape={spec['shapes']}", "fp16=0", *options])
    if code:
        sys.exit(f"pnnx ended with {code}")
    if all(path.is_file() for path in files.values()):
        _net(target, threads=1)


def load(spec: Spec) -> Loaded:
    """The files of `model` of the spec, whose inputs and outputs it names in their order."""
    net = _net(Path(spec["model"]), spec["threads"])
    names = {f"out{i}": name for i, name in enumerate(spec["output_names"])}

    def prepare(inputs: Arrays) -> Step:
        # Without `batch_index` a batch of images is taken for one, and all but a row of its outputs is wrong.
        values = [ncnn.Mat(_narrow(inputs[name]), batch_index=0).clone() for name in spec["input_names"]]
        feed = {f"in{i}": value for i, value in enumerate(values)}
        return lambda: _run(net, feed, names)

    description = {
        "version": metadata.version("ncnn"),
        "execution_provider": "CPU",
        "threads": net.opt.num_threads,
        "precision": "f32",
    }
    return Loaded(prepare, _answers, description, concurrent=True)


def _net(target: Path, threads: int) -> Any:
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    for option in dir(net.opt):
        if "fp16" in option or "bf16" in option:
            setattr(net.opt, option, False)
    if net.load_param(str(target.with_suffix(".param"))) or net.load_model(str(target.with_suffix(".bin"))):
        sys.exit("ncnn cannot load what pnnx wrote")
    return net


def _narrow(array: Any) -> Any:
    """ncnn has no 64-bit values."""
    narrow = {"int64": np.int32, "float64": np.float32}.get(array.dtype.name, array.dtype)
    return np.ascontiguousarray(array, narrow)


def _run(net: Any, feed: Arrays, names: dict[str, str]) -> Arrays:
    extractor = net.create_extractor()
    for name, value in feed.items():
        if extractor.input(name, value):
            sys.exit(f"ncnn did not take {name}")
    outputs = {}
    for place, name in names.items():
        code, outputs[name] = extractor.extract(place)
        if code:
            sys.exit(f"ncnn gave no {name}: it ended with {code}")
    return outputs


def _answers(outputs: Arrays) -> Arrays:
    return {name: np.array(value.numpy(batch_index=0)) for name, value in outputs.items()}
