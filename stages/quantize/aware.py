"""Quantization-aware training: a network learns with what integers leave of its weights and activations."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from pipeline.base.formatting import few
from pipeline.base.hardware import saturation
from pipeline.base.use import nearest
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Note, ShrinkError, StageError
from pipeline.forms.text.remapped import split
from pipeline.model import Model, TorchModel
from pipeline.stage import Stage
from stages.kd.retraining import Retraining
from stages.quantize.mixed.keep import KEEP
from stages.quantize.quantizing.quantizer import check_settings
from stages.quantize.rounding.layout import WEIGHTS
from stages.quantize.rounding.settings import Codebook, Size
from stages.quantize.training import folding
from stages.quantize.training import module as quantized
from stages.quantize.training.folding import foldable
from stages.quantize.training.forward.calls import layer_of
from stages.quantize.training.forward.placement import Plan, plan_of
from stages.quantize.training.mixed.effects import Layers, kept, measure
from stages.quantize.training.mixed.keep import TrainedKeep
from stages.quantize.training.mixed.keeping import TrainedKeeping
from stages.quantize.training.mixed.parts import parts_of
from stages.quantize.training.module import part_of
from stages.quantize.training.numbers.schemes import Bits, Scheme, codebook_size, is_above, rungs, scheme_of
from stages.quantize.training.outcome import in_floats, report_of
from stages.quantize.training.ranges import Calibration, calibrate

FEW = 100
BATCH_SIZE = 64


class AwareQuantization(Retraining, Stage):
    """A network of the same structure trained with quantized weights and activations, for integer kernels.

    Choose it where `quantize.static` loses accuracy, and for fewer than 8 bits. `export.onnx` behind it writes a file
    whose integers are those of the training.

    Example:
        - {use: quantize.aware, bits: 4, epochs: 10}
        - {use: export.onnx}

    Reference:
        S. Esser, J. McKinstry, D. Bablani, R. Appuswamy, D. Modha, "Learned Step Size Quantization", 2020,
        arXiv:1902.08153. Powers of two (apot): Y. Li, X. Dong, W. Wang, "Additive Powers-of-Two Quantization", 2020,
        arXiv:1909.13144. Batch norms folded and integers only: B. Jacob et al., "Quantization and Training of Neural
        Networks for Efficient Integer-Arithmetic-Only Inference", 2018, arXiv:1712.05877.
    """

    quantizes: ClassVar[bool] = True
    bisects_result: ClassVar[bool] = True

    epochs: int = Field(10, gt=0, description="passes over the training split, in all steps of a gradual one")
    learning_rate: float = Field(3e-4, gt=0, description="its peak, after warm-up")
    bits: Bits = Field(8, description="of the weights: 2 to 8, ternary for -1, 0, 1, or sums of powers of two (apot)")
    codebook: Size | None = Field(None, description="instead of bits: how many values weights take, which are trained")
    layers: Mapping[str, Bits | Codebook] = Field(
        {}, description="bits, or {codebook: 16}, of some layers, by the name of a layer or of what layers are in"
    )
    first_last: Bits = Field(8, description="bits of the first and of the last layer with a weight, unless named")
    activations: Literal["uint8", "int8"] = Field(
        "uint8", description="type of the activations; uint8 is the fast one on x86, int8 suits Arm"
    )
    gradual: bool = Field(False, description="let the bits of the weights fall along the training, from 8 on")
    calibration: Calibration = Field(
        "mse", description="ranges to begin with: of least squared error, without the rarest values, or all"
    )
    percentile: Annotated[float, Field(gt=50, le=100)] = Field(
        99.99, description="share of values inside the range, in per cent, for calibration: percentile"
    )
    examples: int = Field(512, gt=0, description="calibration examples at most")
    keep: TrainedKeep | None = Field(None, description=f"{KEEP}, each mixture trained for all epochs")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.codebook is not None and self.bits != 8:
            raise ValueError(f"`bits` is {self.bits} and `codebook` is {self.codebook}: leave one out")
        widths = (*self.layers.values(), *(self.keep.widths if self.keep else ()))
        steps = len(rungs([self._usual, *map(scheme_of, (self.first_last, *widths))])) + 1
        if self.gradual and self.epochs < steps:
            raise ValueError(f"{self.epochs} epochs cannot be divided among the {steps} steps of `gradual`")
        return self

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse what is quantized already; warn of few calibration examples."""
        check_settings(before, preview.model, (), ())
        yield from self.check_teachers(preview, known=not before)
        default = type(self).model_fields["percentile"].default
        if self.percentile != default and self.calibration != "percentile":
            fix = "Set calibration: percentile, or leave percentile out"
            raise ConfigError(f"`percentile` is {self.percentile:g} and `calibration` is {self.calibration}", fix=fix)
        used = min(len(preview.calibration), self.examples)
        if used < FEW:
            yield f"calibration uses {used} examples; ranges are steadier with {FEW} or more"
        if self.keep:
            yield from self.keep.check(self.model_dump(exclude_defaults=True), preview)
        yield from saturation(preview.isa, "`bits` and `first_last` of 7 or less avoid it")

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Which layers have weights to quantize; refuse `layers` that name none, and a model with none."""
        if isinstance(model, TorchModel):
            folded, plan = prepared(model)
            layers = [f"`{layer_of(weight)}`" for weight in self._schemes(folded, plan, ConfigError)]
            yield Note(f"quantizes the weights of {len(layers)} layer{'s' * (len(layers) > 1)} ({few(layers)})")
            if self.keep:
                parts = parts_of(split(folded.module)[0], plan)
                yield Note(self.keep.foreseen(parts, self.epochs))

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The trained model.

        Raises:
            StageError: nothing can be quantized, `layers` names none, calibration data are not finite, or no mixture of
                widths keeps the score.
        """
        if self.keep is None:
            return self._quantized(model, ctx)
        folded, plan = prepared(model)
        calibrated = self._started(folded, plan, dict.fromkeys(plan.axes, 8), folded, ctx)

        def with_layers(layers: Layers) -> "AwareQuantization":
            return self.model_copy(update={"keep": None, "layers": layers})

        def untrained(layers: Layers) -> TorchModel:
            schemes = with_layers(layers)._schemes(folded, plan, StageError)
            return self._started(folded, plan, schemes, calibrated, ctx)

        def trained(layers: Layers, inner: Context) -> TorchModel:
            return with_layers(layers)._quantized(model, inner)

        keep, parts = self.keep, parts_of(split(folded.module)[0], plan)

        def make(to: Path) -> None:
            measure(keep, parts, untrained, ctx, to)

        known = self.model_dump(mode="json", include={"activations", "calibration", "percentile", "examples"})
        rows = kept(keep, make, known, model, ctx)
        return TrainedKeeping(keep, rows, model, ctx, untrained, trained).smallest()

    def _quantized(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The trained model, as the settings say."""
        teachers = self.open(model, ctx)
        folded, plan = prepared(model)
        schemes = self._schemes(folded, plan, StageError)
        falling: list[int | None] = [*rungs(schemes.values())] if self.gradual else []
        current, steps = folded, [*falling, None]
        for step, bits in enumerate(steps, 1):
            of_step = {name: bits if bits and is_above(bits, own) else own for name, own in schemes.items()}
            start = self._started(folded, plan, of_step, current, ctx)
            name = f"training_{step}" if len(steps) > 1 else "training"
            current = self.retrained(teachers, start, ctx, name, step, len(steps))
        ctx.report("aware", report_of(current))
        if floats := in_floats(current):
            ctx.log.info("weights that stay in fp32: %s", few([*floats]))
        return current

    def chooses_by_answers(self) -> bool:
        """Where it keeps a score, which is then measured."""
        return self.keep is not None

    def packable(self) -> bool:
        """Where some layers may have fewer than 8 bits."""
        widths = (self.first_last, *self.layers.values(), *(self.keep.widths if self.keep else ()))
        return any(width != 8 for width in (self._usual, *widths))

    def trainings(self) -> list[tuple[int, int]]:
        """As many as it may take to keep a score."""
        return [*super().trainings()] * (self.keep.trainings if self.keep else 1)

    def sensitivity(self) -> list[dict[str, JsonValue]]:
        """Of the layers of its file in fp32 to fewer bits."""
        measure: dict[str, JsonValue] = {"use": "quantize.sensitivity", "operators": [*WEIGHTS]}
        return [{"use": "export.onnx"}, measure]

    def bisection(self) -> list[dict[str, JsonValue]]:
        """Which layers of the trained network integers cost most."""
        return [{"use": "quantize.aware_bisect"}]

    def _schemes(self, folded: TorchModel, plan: Plan, error: type[ShrinkError]) -> dict[str, Scheme]:
        """Which integers each weight may take. Raises `error` for layers that are not there, or are too small."""
        core = split(folded.module)[0]
        layers = list(dict.fromkeys(map(layer_of, plan.axes)))
        for name in self.layers:
            if not any(_is_in(layer, name) for layer in layers):
                problem = f"`layers` names `{name}`, which has no weight to quantize{nearest(name, layers)}"
                raise error(problem, expected="the name of a layer, or of a part with layers")
        schemes = {}
        for weight in plan.axes:
            scheme = schemes[weight] = self._scheme_of(layer_of(weight), layers)
            if codebook_size(scheme) > (size := core.get_parameter(weight).numel()):
                problem = f"`{weight}` has {size} numbers, fewer than the {codebook_size(scheme)} of its codebook"
                raise error(problem, fix=f"Give `{layer_of(weight)}` bits in `layers`")
        if self._usual != 8 and {*schemes.values()} == {8}:
            problem = "all weights stay at 8 bits: the first and the last layer do unless they are named"
            raise error(problem, fix="Name them in `layers`, or set `first_last`")
        return schemes

    def _scheme_of(self, layer: str, layers: Sequence[str]) -> Scheme:
        """What the nearest name in `layers` says, else the general settings."""
        names = [name for name in self.layers if _is_in(layer, name)]
        if names:
            return scheme_of(self.layers[max(names, key=len)])
        return scheme_of(self.first_last) if layer in (layers[0], layers[-1]) else self._usual

    @property
    def _usual(self) -> Scheme:
        return f"codebook{self.codebook}" if self.codebook is not None else scheme_of(self.bits)

    def _started(
        self, folded: TorchModel, plan: Plan, schemes: dict[str, Scheme], current: TorchModel, ctx: Context
    ) -> TorchModel:
        """The quantized model before a training: with its ranges, or with those and the weights of one before it."""
        arguments: dict[str, JsonValue] = {"schemes": {**schemes}, "activations": self.activations}
        start = folded.edited(quantized.USE, plan=plan.to_json(), **arguments)
        core, part = split(start.module)[0], part_of(start.module)
        if current is folded:
            count = min(self.examples, len(ctx.calibration))
            batches = ctx.calibration.select(list(range(count))).loader(BATCH_SIZE)
            calibrate(start.module, part, batches, self.calibration, self.percentile)
        else:
            own = f"{quantized.PART}.weights."
            state = split(current.module)[0].state_dict()
            core.load_state_dict({k: v for k, v in state.items() if not k.startswith(own)}, strict=False)
        part.start({name: core.get_parameter(name) for name in plan.axes})
        return start


def prepared(model: TorchModel) -> tuple[TorchModel, Plan]:
    """The model with batch norms folded, and where it is quantized. Raises StageError where nothing can be."""
    core, vocabulary = split(model.module)
    if "forward" in vars(core):
        problem = "the module has a forward of its own, apart from its class"
        raise StageError(problem, expected="one that its class defines", fix="Put another module around it")
    inputs = vocabulary.translate(model.example) if vocabulary else model.example
    pairs: list[JsonValue] = [[*pair] for pair in foldable(core, inputs)]
    folded = model.edited(folding.USE, pairs=pairs) if pairs else model
    plan = plan_of(split(folded.module)[0], inputs)
    if not plan.axes:
        expected = "convolutions, linear, recurrent or embedding layers of torch.nn"
        raise StageError("the forward reads no weight that can be quantized", expected=expected)
    return folded, plan


def _is_in(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(f"{name}.")
