"""Whether stages fit together: what each takes and gives, by the annotations of its `run`."""

import inspect
from collections.abc import Sequence
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline.errors import ConfigError, blame
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.model import OnnxModel, TorchModel
from pipeline.stage import Stage

FORMS = {TorchModel: "a torch model", OnnxModel: "an ONNX file", Seq2SeqOnnx: "an encoder-decoder as ONNX files"}


def forms(stage: type[Stage]) -> tuple[frozenset[type], type | None]:
    """What `stage.run` takes, and what it gives; None where it gives the form that it got."""
    hints = get_type_hints(stage.run)
    name = next(iter(list(inspect.signature(stage.run).parameters)[1:]), "")
    model_hint, return_hint = hints.get(name, Any), hints.get("return", Any)
    takes = frozenset(_members(model_hint))
    gives = _members(return_hint)
    known = takes and gives and takes | set(gives) <= set(FORMS)
    if not known or (len(gives) > 1 and model_hint != return_hint):
        problem = f"`{stage.__name__}.run` is annotated ({model_hint}) -> {return_hint}"
        expected = "(model: TorchModel | OnnxModel, ctx: Context) -> TorchModel or OnnxModel, AnyForm for all"
        raise ConfigError(problem, expected=expected)
    if isinstance(return_hint, TypeVar) or len(gives) > 1:
        return takes, None
    return takes, gives[0]


def check_chain(chain: Sequence[tuple[str, Stage]], start: type) -> type:
    """The form at the end of a chain of (place, stage) that begins with `start`.

    Raises:
        ConfigError: a stage does not take what the one before it gives.
    """
    form, giver = start, "the model"
    for place, stage in chain:
        with blame(ConfigError, place):
            takes, gives = forms(type(stage))
        if form not in takes:
            problem = f"it is given {FORMS[form]} by {giver}"
            expected = " or ".join(FORMS[t] for t in FORMS if t in takes)
            fix = _remedy(form, takes, giver, stage.only_measures)
            raise ConfigError(problem, where=place, expected=expected, fix=fix)
        form, giver = gives or form, place
    return form


def _remedy(form: type, takes: frozenset[type], giver: str, only_measures: bool) -> str:
    if TorchModel in takes:
        return f"Move it before {giver}"
    if form is Seq2SeqOnnx and only_measures:
        return "Use export.onnx in place of export.seq2seq, whose three graphs are not looked at layer by layer"
    if form is Seq2SeqOnnx and "quantize." in giver:  # which is done; what follows would be another step
        return "Leave it out, or use export.onnx in place of export.seq2seq"
    if form is Seq2SeqOnnx:
        return "Use quantize.optimum, which takes these files, or export.onnx in place of export.seq2seq"
    return "Put export.onnx before it"


def _members(hint: Any) -> list[type]:
    if isinstance(hint, TypeVar):
        return list(hint.__constraints__)
    if get_origin(hint) is Union or "UnionType" in type(hint).__name__:
        return list(get_args(hint))
    return [hint] if isinstance(hint, type) else []
