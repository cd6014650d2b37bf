"""A chain that does not fit is refused from its annotations alone."""

from typing import Any, Union

import pytest
from pydantic import Field
from torch import nn

from pipeline.context import Context
from pipeline.errors import ConfigError
from pipeline.fit import check_chain, forms
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.stage import AnyForm, Stage


class FromTorch(Stage):
    width: int = Field(default=1, ge=1)

    def run(self, model: TorchModel, ctx: Context) -> TorchModel: ...


NOTHING = object()


def stage(name: str, takes: Any = TorchModel, gives: Any = TorchModel) -> type[Stage]:
    """A stage whose `run` has these annotations; where one is NOTHING it is left out."""

    def run(self, model, ctx): ...

    annotations = {"model": takes, "ctx": Context, "return": gives}
    run.__annotations__ = {name: kind for name, kind in annotations.items() if kind is not NOTHING}
    return type(name, (Stage,), {"run": run, "__module__": __name__})


Export = stage("Export", gives=OnnxModel)
FromOnnx = stage("FromOnnx", OnnxModel, OnnxModel)
Either = stage("Either", AnyForm, AnyForm)
Alias = stage("Alias", Model, Model)
Bar = stage("Bar", TorchModel | OnnxModel, TorchModel | OnnxModel)
OldUnion = stage("OldUnion", Union[TorchModel, OnnxModel], OnnxModel)  # noqa: UP007
Quoted = stage("Quoted", "TorchModel", "OnnxModel")
NoResult = stage("NoResult", gives=NOTHING)
NoneResult = stage("NoneResult", gives=None)
Foreign = stage("Foreign", gives=nn.Module)
NoModel = stage("NoModel", takes=NOTHING)
ForeignModel = stage("ForeignModel", takes=nn.Module)
Ambiguous = stage("Ambiguous", gives=TorchModel | OnnxModel)
OptionalResult = stage("OptionalResult", gives=TorchModel | None)
Undefined = stage("Undefined", takes="Nowhere")

BOTH = frozenset({TorchModel, OnnxModel})
ALL = BOTH | {Seq2SeqOnnx}


@pytest.mark.parametrize(("stage", "expected"), [
    (FromTorch, ({TorchModel}, TorchModel)),
    (Export, ({TorchModel}, OnnxModel)),
    (FromOnnx, ({OnnxModel}, OnnxModel)),
    (Quoted, ({TorchModel}, OnnxModel)),
    (OldUnion, (BOTH, OnnxModel)),
    (Either, (ALL, None)),
    (Alias, (ALL, None)),
    (Bar, (BOTH, None)),
])  # fmt: skip
def test_forms_reads_what_a_stage_takes_and_gives(stage: type[Stage], expected: tuple[Any, Any]) -> None:
    assert forms(stage) == (frozenset(expected[0]), expected[1])


@pytest.mark.parametrize("stage", [NoResult, NoneResult, Foreign, NoModel, ForeignModel, Ambiguous, OptionalResult])
def test_forms_refuses_annotations_that_do_not_say_a_form(stage: type[Stage]) -> None:
    with pytest.raises(ConfigError, match=rf"`{stage.__name__}\.run` is annotated .*expected \(model: TorchModel"):
        forms(stage)


def chain(*stages: type[Stage]) -> list[tuple[str, Stage]]:
    return [(f"stages[{i}] ({stage.__name__})", stage()) for i, stage in enumerate(stages)]


@pytest.mark.parametrize(("stages", "end"), [
    ((), TorchModel),
    ((FromTorch, FromTorch), TorchModel),
    ((FromTorch, Export, FromOnnx), OnnxModel),
    ((Either, Export, Either, FromOnnx), OnnxModel),
    ((Bar,), TorchModel),
])  # fmt: skip
def test_check_chain_gives_the_form_at_the_end(stages: tuple[type[Stage], ...], end: type) -> None:
    assert check_chain(chain(*stages), TorchModel) is end


@pytest.mark.parametrize(("stages", "message"), [
    ((FromTorch, FromOnnx),
     r"stages\[1\] \(FromOnnx\): it is given a torch model by stages\[0\] \(FromTorch\); expected an "
     r"ONNX file\. Put export\.onnx before it\."),
    ((Export, Either, FromTorch),
     r"stages\[2\] \(FromTorch\): it is given an ONNX file by stages\[1\] \(Either\); expected a torch model\. "
     r"Move it before stages\[1\]"),
    ((FromOnnx,), r"stages\[0\] \(FromOnnx\): it is given a torch model by the model"),
    ((FromTorch, NoneResult), r"stages\[1\] \(NoneResult\): `NoneResult\.run` is annotated"),
    ((Undefined,), r"stages\[0\] \(Undefined\): NameError: name 'Nowhere' is not defined"),
])  # fmt: skip
def test_check_chain_says_what_was_received_and_what_to_move(stages: tuple[type[Stage], ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_chain(chain(*stages), TorchModel)
