"""What a stage is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import JsonValue

from pipeline.base.data.strict import Strict
from pipeline.base.use import classes_in
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.forms.graph import OPSET
from pipeline.model import Model, OnnxModel, TorchModel

AnyForm = TypeVar("AnyForm", TorchModel, OnnxModel, Seq2SeqOnnx)
"""For a stage that takes every form and gives the same form back."""


class Stage(Strict, ABC):
    """One step of a chain. Its fields are its keys in the YAML; the annotations of `run` say what it takes and gives.

    `run` returns a new model and never changes the one it was given; returning that same object means that the stage
    only measured. What it raises as `StageError` reaches the user as it is.
    """

    distributed: ClassVar[bool] = False
    """Whether all processes run it together where there are several, as they must where it trains."""
    host_bound: ClassVar[bool] = False
    """Whether what it finds holds on this machine alone, as a latency does."""

    only_measures: ClassVar[bool] = False
    """Whether it gives back the model that came in, so that those behind it find what stood before it."""

    extra: ClassVar[str] = ""
    """The extra of the package that brings what it needs, where one does."""
    keeps_structure: ClassVar[bool] = False
    """Whether what it gives has the layers and shapes of what comes in, so that these are known before it runs."""
    narrows: ClassVar[bool] = False
    """Whether what it gives has the layers of what comes in, but smaller by what is only known when it runs."""

    quantizes: ClassVar[bool] = False
    """Whether weights of what it gives are rounded, so that nothing behind it may round them again."""

    packs: ClassVar[bool] = False
    """Whether it stores integers in as few bits as they need."""

    bisects_result: ClassVar[bool] = False
    """Whether `bisection` looks at what it gave and stands behind it; else it stands in its place."""

    def check(self, before: Sequence["Stage"], preview: Preview) -> Iterable[str]:
        """What the types cannot say: raise ConfigError for what cannot work, give warnings for what is suspicious.

        A `Note` among them is said in the plan and is no warning.
        """
        return ()

    def reach(self, model: Model, before: Sequence["Stage"] = ()) -> Iterable[str]:
        """What it would change, and what it would leave as it is, by name: notes and warnings, told before any work.

        Raise ConfigError where it could change nothing.

        Args:
            model: untrained, with the layers and operators of what will come in; where one of `before` narrows them,
                they are wider here.
            before: the stages before it.
        """
        return ()

    def outlook(self, model: Model, before: Sequence["Stage"], preview: Preview) -> Model | None:
        """An untrained model with the layers of what it gives; None where these are not known before it runs.

        Of a stage that exports, the model that it exports.

        Args:
            model: as in `reach`.
            before, preview: as in `check`.
        """
        return model if self.keeps_structure or self.host_bound or self.only_measures else None

    def leaves_out(self) -> bool:
        """Whether layers that `outlook` gives may not be there in the end, so that nodes of a file have other names."""
        return False

    def sensitivity(self) -> Sequence[dict[str, JsonValue]]:
        """The entries of a chain that measure in its place how much the answers depend on each layer; none unless said.

        They have `use` and settings, as in a pipeline file; see `shrink sensitivity`.
        """
        return ()

    def bisection(self) -> Sequence[dict[str, JsonValue]]:
        """The entries of a chain that find, in its place, which layers cost the accuracy; none unless said.

        See `shrink bisect` and `bisects_result`.
        """
        return ()

    def exported_opset(self) -> int:
        """The ONNX operator set of what it exports, where it does."""
        return OPSET

    def chooses_by_answers(self) -> bool:
        """Whether what it gives depends on how models score or how fast they are, which elsewhere they are not."""
        return False

    def packable(self) -> bool:
        """Whether weights of what it gives may have so few values that a stage that packs takes bytes off them."""
        return False

    def trainings(self) -> Iterable[tuple[int, int]]:
        """For each training that it does its batch size, and in how many parts a process computes a batch."""
        return ()

    def taught_by_baseline(self, incoming: bool) -> bool:
        """Whether the baseline is its teacher, as reports then call it; `incoming` where that is what comes in."""
        return incoming

    def builds_on_incoming(self) -> bool:
        """Whether anything of the model that comes in is in what it gives; else all stages before it are in vain."""
        return True

    def builds_anew(self) -> bool:
        """Whether what it gives is built by code alone, so that nothing of what earlier stages changed is in it."""
        return False

    def timeable(self) -> bool:
        """Whether what it gives can be timed."""
        return True

    def timed_in(self) -> Sequence[Mapping[str, JsonValue]]:
        """Where each row of its latencies is measured: `runtime`, `threads`, `batch`, and `settings`, if any.

        A limit on another one is refused before work; of a stage that does not say, none is.
        """
        return ()

    def measure(self, models: Mapping[str, Model], ctx: Context) -> dict[str, JsonValue]:
        """For each model what is measured of it, all in turns; a `host_bound` stage has it, and `run` reports it.

        Strategies are compared so: what interleaves is comparable.
        """
        raise NotImplementedError

    @abstractmethod
    def run(self, model: Any, ctx: Context) -> Any:
        """The new model. Subclasses annotate `model` and the result with TorchModel, OnnxModel or AnyForm."""


def quantizing(before: Sequence[Stage]) -> Stage | None:
    """The last of the stages before that rounded the weights of what comes in; None where they are as trained."""
    for stage in reversed(before):
        if stage.quantizes or stage.builds_anew():
            return stage if stage.quantizes else None
    return None


def stage_class(module: Any) -> type[Stage]:
    """The one Stage that a module defines. Raises ConfigError when it defines none or several."""
    classes: list[type[Stage]] = classes_in(module, Stage)
    if len(classes) != 1:
        names = ", ".join(c.__name__ for c in classes) or "none"
        problem = f"the module defines {len(classes)} stages ({names})"
        raise ConfigError(problem, expected="exactly one subclass of Stage")
    return classes[0]
