"""Whether runtimes can run a model where they shall, told before any work."""

from collections.abc import Iterator, Sequence

from pipeline.errors import ConfigError
from pipeline.fit import FORMS
from pipeline.model import Model, TorchModel
from stages.benchmark.runtime import Runtime


def check_runtimes(runtimes: Sequence[Runtime], form: type, threads: int) -> Iterator[str]:
    """Which runtimes will be skipped, for hardware that is absent.

    Args:
        runtimes: one at least.
        form: of the model.
        threads: the most of an inference.

    Raises:
        ConfigError: one does not take the form, is not installed, or cannot run where it shall; or hardware is absent
            of one that is required, or of all; or one is there twice.
    """
    settings = [runtime.model_dump(exclude={"required"}) for runtime in runtimes]
    if twice := [runtime for runtime, own in zip(runtimes, settings, strict=True) if settings.count(own) > 1]:
        raise ConfigError(f"`runtimes` has {twice[0].label} twice", expected="each once, or with other settings")
    lacks = [runtime.lacks() for runtime in runtimes]
    for runtime, lack in zip(runtimes, lacks, strict=True):
        _check(runtime, form, threads, lack)
        if lack:
            yield f"`runtimes` has {runtime.title}, which will be skipped: {lack}"
    if all(lacks):
        problem = f"no runtime of `runtimes` can run here: {lacks[0]}"
        raise ConfigError(problem, expected="one that can, such as onnxruntime")


def check_rebuilt(runtimes: Sequence[Runtime], model: Model) -> None:
    """Raise ConfigError where a runtime builds a model in its process that this one alone has."""
    if not isinstance(model, TorchModel) or not model.builder.is_lent:
        return
    for runtime in runtimes:
        if runtime.forms == (TorchModel,):
            problem = f"`runtimes` has {runtime.name}, whose processes build the model, which was given as an object"
            fix = 'Give shrinkline.compress builder="models.py:net", or measure after export.onnx'
            raise ConfigError(problem, expected="what builds it, in a file", fix=fix)


def _check(runtime: Runtime, form: type, threads: int, lack: str | None) -> None:
    if form not in runtime.forms:
        problem = f"`runtimes` has {runtime.name}, and the model is {FORMS[form]} here"
        raise ConfigError(problem, expected="runtimes: [onnxruntime]", fix=runtime.remedy)
    if unfit := runtime.unfit(threads):
        raise ConfigError(f"`runtimes` has {runtime.title}, which cannot run there: {unfit}")
    if lack and runtime.required:
        raise ConfigError(f"`runtimes` has {runtime.title}, which is required: {lack}", fix="Leave out `required`")
    if not lack and runtime.is_needed_here and (missing := runtime.missing()):
        raise ConfigError(f"`runtimes` has {runtime.name}, which cannot run here: {missing}")
