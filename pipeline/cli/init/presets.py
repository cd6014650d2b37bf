"""Which stages suit a model and a target, in their order."""

from pipeline.base.use import built_in
from pipeline.cli.init.facts import Facts
from pipeline.cli.init.values import Target
from pipeline.errors import ConfigError

Preset = tuple[str, ...]
"""Names of stages, each of which has a template in templates/."""

MOSTLY = 0.5  # of the parameters in what cannot be quantized: it is not worth a stage
EXPORT, SEQUENCES = "export.onnx", "export.seq2seq"
AWARE, PACK = "quantize.aware", "quantize.pack"
TRAINED_IN_FEW_BITS = ("convolutional", "feed-forward", "transformer")


def preset(facts: Facts, target: Target, *, student: bool) -> Preset:
    """The stages of a starting config.

    Args:
        facts: what was found.
        target: where the model is to run.
        student: whether the teacher can be made smaller for a student.

    Raises:
        ConfigError: there is no stage that would do anything to it.
    """
    if target == "edge" and not facts.onnx and facts.kind in TRAINED_IN_FEW_BITS:
        named = [*_smaller(facts, target, student), AWARE, EXPORT, PACK]  # there every byte counts
    else:
        named = [*_smaller(facts, target, student), *_exported(facts), *_quantized(facts, target)]
    if target == "cpu":
        named.append("benchmark.latency")  # of the host's processor, which is no GPU and no device
    if not named:
        form = "an ONNX file with quantized nodes" if facts.quantized else "an ONNX file"
        fix = "Give the module: `--model models.py:net --weights net.safetensors`"
        raise ConfigError(f"no stage makes {form} fit for the target {target}", where="--target", fix=fix)
    return tuple(named)


def _smaller(facts: Facts, target: Target, student: bool) -> list[str]:
    """What takes layers or channels out of a torch model."""
    if facts.onnx:
        return []
    if facts.kind == "sequence":
        return ["distill.sequence"] if student and facts.as_target else []
    prunable = facts.kind in ("convolutional", "feed-forward")
    distills = student and facts.logits and (facts.kind == "transformer" or target == "edge")
    prunes = prunable and (target == "edge" or not distills)
    return ["distill.logits"] * distills + ["prune.channels"] * prunes


def _exported(facts: Facts) -> list[str]:
    if facts.onnx:
        return []
    generates = facts.kind == "sequence" and facts.library and SEQUENCES in built_in("stages")
    return [SEQUENCES if generates else EXPORT]


def _quantized(facts: Facts, target: Target) -> list[str]:
    """int8: by calibration where convolutions or dense features are, as they come where tokens or states are."""
    if target == "gpu" or facts.quantized or facts.kind == "other" or facts.loops > MOSTLY:
        return []
    if facts.kind == "sequence":
        return ["quantize.optimum"] if SEQUENCES in _exported(facts) else []
    if facts.kind == "recurrent" or (facts.kind == "transformer" and facts.text):
        return ["quantize.dynamic"]
    return ["quantize.static"]
