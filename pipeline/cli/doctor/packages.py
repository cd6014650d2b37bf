"""Libraries and runtimes: which are installed, in which versions, and which are older than what is tested."""

from collections.abc import Iterable

from packaging.version import Version

from pipeline.base.code.extras import EXTRAS, install, misfits
from pipeline.base.hardware import version
from pipeline.cli.doctor.finding import Finding

PACKAGES, RUNTIME = "packages", "runtimes"

TESTED = {
    "torch": "2.13.0",
    "onnx": "1.23.2",
    "onnxruntime": "1.31.1",
    "onnxscript": "0.7.2",
    "torch-pruning": "1.6.1",
    "transformers": "4.57.6",
    "datasets": "5.0.1",
    "accelerate": "1.15.0",
    "mlflow": "3.17.2",
    "safetensors": "0.8.0",
    "numpy": "2.4.6",
}
"""What nothing runs without, and the versions of constraints.txt, which the tests run with."""

NEWEST = {"torch": "2.14.1", "transformers": "5.24.0"}
"""Of what runs in newer versions too: the newest that was tried."""

OTHER_BUILDS = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime-openvino"), "mlflow": ("mlflow-skinny",)}
"""Distributions that bring the same module."""

RUNTIMES = {"TensorRT": "tensorrt"}
"""Runtimes that no stage asks for, by the distribution that brings them; `shrink runtimes` lists the others."""


def packages() -> Iterable[Finding]:
    """A row for each library, and one for each extra."""
    for name, tested in TESTED.items():
        yield _library(name, tested)
    for extra, names in EXTRAS.items():
        name, text = f"extra `{extra}`", ", ".join(f"{name} {version(name)}" for name in names if version(name))
        if not text:
            yield Finding(PACKAGES, name, "note", "not installed", fix=install(extra=extra))
        elif clauses := misfits(extra):
            yield Finding(PACKAGES, name, "warning", "; ".join([text, *clauses]), fix=install(extra=extra))
        else:
            yield Finding(PACKAGES, name, "ok", text)


def _library(name: str, tested: str) -> Finding:
    builds = (name, *OTHER_BUILDS.get(name, ()))
    build, number = next(((build, number) for build in builds if (number := version(build))), (name, None))
    if number is None:
        return Finding(PACKAGES, name, "missing", "not installed", fix=install(f"'{name}>={tested}'"))
    text = number if build == name else f"{number} of {build}"
    if Version(number) < Version(tested):
        fix = install(f"-U '{build}>={tested}'")
        return Finding(PACKAGES, name, "warning", f"{text}; older than {tested}, which is tested", fix=fix)
    newest = NEWEST.get(name, number)
    if Version(number).release > Version(newest).release:
        fix = install(f"'{build}<={newest}'")
        return Finding(PACKAGES, name, "warning", f"{text}; newer than {newest}, the newest that was tried", fix=fix)
    return Finding(PACKAGES, name, "ok", text)


def runtimes() -> Iterable[Finding]:
    """ONNX Runtime with its providers, and a row for each of the others."""
    yield onnxruntime_providers()
    for name, distribution in RUNTIMES.items():
        number = version(distribution)
        text = f"{distribution} {number}" if number else "not installed; no stage asks for it"
        yield Finding(RUNTIME, name, "ok" if number else "note", text)


def onnxruntime_providers() -> Finding:
    """What ONNX Runtime can run on here."""
    try:
        import onnxruntime
    except ImportError as error:
        return Finding(RUNTIME, "ONNX Runtime", "missing", f"it cannot be imported: {error}", "pip install onnxruntime")
    names = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    if "CPU" not in names:  # every figure of ours is of it
        fix = "Install a build of onnxruntime with the CPU provider"
        return Finding(RUNTIME, "ONNX Runtime", "missing", f"providers: {', '.join(names) or 'none'}", fix)
    return Finding(RUNTIME, "ONNX Runtime", "ok", f"{onnxruntime.__version__}; providers: {', '.join(names)}")
