"""Unstructured and N:M pruning: single weights become zero, and stay so in every training behind it."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator
from torch import Tensor, nn

from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Note, ShrinkError, StageError
from pipeline.measure.cost import torch_params
from pipeline.model import Model, TorchModel
from pipeline.stage import Stage
from stages.prune.coupling.telling import check_finite, with_plain_weights
from stages.prune.settings import Pruning
from stages.prune.sparse.choice import Choice, by_magnitude, chosen
from stages.prune.sparse.inputs import input_sums, output_errors
from stages.prune.sparse.masks import Amount, Pattern, share_of, zeros_of
from stages.prune.sparse.methods import Method, pruned, pruned_together
from stages.prune.training.recovery import IDLE_STEPS
from stages.trainer.zeros import USE

BYTES = Note(
    "zeros take as many bytes as other weights until `quantize.pack`, and no runtime here is faster for them on CPUs"
)
SUMS: dict[Method, Literal["squares", "products"]] = {"wanda": "squares", "sparsegpt": "products"}
"""What a method wants of the inputs."""


class WeightPruning(Pruning, Stage):
    """The same network with zeros among its weights, as many as asked for or in a pattern as 2:4, held in training.

    Choose it before `quantize.pack`, which stores zeros in fewer bytes, or for hardware with 2:4 kernels; on a CPU it
    makes nothing faster, `prune.channels` does.

    Example:
        - {use: prune.weights, sparsity: 0.7, method: wanda, recovery: {epochs: 5}}

    Reference:
        Wanda: M. Sun, Z. Liu, A. Bair, J. Z. Kolter, 2023, arXiv:2306.11695, equation 1. SparseGPT: E. Frantar,
        D. Alistarh, 2023, arXiv:2301.00774, algorithm 1. Gradual: M. Zhu, S. Gupta, "To Prune, or Not to Prune", 2017,
        arXiv:1710.01878, equation 1. 2:4: A. Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021,
        arXiv:2104.08378.
    """

    keeps_structure: ClassVar[bool] = True
    targets: ClassVar[tuple[str, ...]] = ("sparsity", "pattern")

    sparsity: float | None = Field(None, gt=0, lt=1, description="share of zeros in the weights that are pruned")
    pattern: str | None = Field(
        None,
        description="how many of how many inputs beside each other stay, as 2:4; of convolutions, of input channels",
    )
    method: Method = Field(
        "magnitude",
        description="magnitude needs no data; wanda: times the norm of the input; sparsegpt: by what a zero costs the "
        "outputs, which the other weights make good; both on calibration data",
    )
    scope: Literal["uniform", "global"] = Field(
        "uniform",
        description="uniform: the same share of each layer; global: all weights ranked together, by LAMP",
    )
    first_last: bool = Field(False, description="prune the first and the last layer with a weight, too")
    steps: int = Field(1, gt=0, description="prune gradually, the share rising fast at first; zeros stay")
    ignore: tuple[str, ...] = Field(
        (), description="layers, or parts with layers, that stay dense; with * for any letters"
    )
    examples: int = Field(128, gt=0, description="calibration examples at most")

    def trainings(self) -> Iterable[tuple[int, int]]:
        """One after each step."""
        return [*super().trainings()] * self.steps

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.pattern is not None:
            Pattern.of_text(self.pattern)
            if self.steps > 1:
                raise ValueError("`steps` is for `sparsity`: a pattern is made at once")
        if self.scope == "global" and (self.pattern is not None or self.method != "magnitude"):
            raise ValueError("`scope: global` ranks magnitudes: it goes with `sparsity` and `method: magnitude` alone")
        if self.recovery:
            self.recovery.check_steps(self.steps)
        return self

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Warn of steps that train nothing in between, and of widths before it that no pattern may fit.

        Refuse quantized weights, and teachers that are not there.
        """
        yield from super().check(before, preview)
        if self.steps > 1 and not self.recovery and self.method == "magnitude":
            yield IDLE_STEPS
        length = Pattern.of_text(self.pattern).of if self.pattern else 1
        behind = [*takewhile(lambda stage: not stage.builds_anew(), reversed(before))]
        if any(isinstance(stage, Pruning) and getattr(stage, "round_to", length) % length for stage in behind):
            need = f"they must be multiples of {length}, to which `round_to` may round them"
            yield f"`pattern: {self.pattern}` may not fit the widths that a stage before this one leaves: {need}"

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Which weights get zeros and which do not; refuse a model with none to prune, or one that no pattern fits."""
        if not isinstance(model, TorchModel):
            return
        notes = list[str]()
        plain = with_plain_weights(model, notes.append)
        choice = self._choice(plain, ConfigError)
        self._expect_zeros([plain.module.get_parameter(name).numel() for name in choice.names])
        yield from (*notes, *choice.notes(by_inputs=self.method != "magnitude"), BYTES)

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The pruned, and where asked trained, model.

        Raises:
            StageError: there is nothing to prune, a pattern does not fit, a layer in `ignore` does not exist, the model
                is quantized, weights or calibration data are not finite, or no weight becomes zero.
        """
        self._expect_floats(model.module)
        teachers = self.recovery.open(model, ctx) if self.recovery else []
        model = with_plain_weights(model, ctx.warn)
        check_finite(model)
        choice = self._choice(model, StageError)
        current, steps = model.edited(USE, weights=[*choice.names]), list[JsonValue]()
        for step in range(1, self.steps + 1):
            amount = self._amount(step)
            changed, unmet = self._pruned(current.module, choice, amount, ctx)
            if step == self.steps:
                before = current if self.recovery else model
                errors = output_errors(before.module, choice.weights, changed, ctx, self.examples)
            for name, value in changed.items():
                current.module.get_parameter(name).data.copy_(value)
            zeros, size = _zeros(current.module, choice.names)
            if step == self.steps and zeros == _zeros(model.module, choice.names)[0]:
                problem = f"no weight became zero: {zeros:,} of {size:,} are already"
                raise StageError(problem, fix="Ask for more zeros, or leave the stage out")
            steps.append({"target": share_of(amount), "achieved": zeros / size})
            if self.recovery:
                current = self.recovery.retrained(teachers, current, ctx, f"recovery_{step}", step, self.steps)
        if unmet:
            ctx.warn(by_magnitude(unmet))
        self._report(current.module, choice, unmet, errors, steps, ctx)
        return current

    def _choice(self, model: TorchModel, error: type[ShrinkError]) -> Choice:
        pattern = Pattern.of_text(self.pattern) if self.pattern else None
        return chosen(model, self.ignore, self.first_last, pattern, error)

    def _expect_zeros(self, sizes: list[int]) -> None:
        """Raise ConfigError where the share is that of no whole number in any weight, or in all ranked together."""
        most = sum(sizes) if self.scope == "global" else max(sizes)
        if self.sparsity is not None and not zeros_of(most, self.sparsity):
            problem = f"`sparsity: {self.sparsity:g}` is less than one of the {most:,} numbers that are pruned together"
            raise ConfigError(problem, expected=f"at least {1 / most:.2g}")

    def _amount(self, step: int) -> Amount:
        """What is zero after a step: its share rises as the cube of the steps that are left falls."""
        if self.pattern:
            return Pattern.of_text(self.pattern)
        return (self.sparsity or 0.0) * (1 - (1 - step / self.steps) ** 3)

    def _pruned(
        self, module: nn.Module, choice: Choice, amount: Amount, ctx: Context
    ) -> tuple[dict[str, Tensor], list[str]]:
        """The weights as they are after a step, by name, and the names of those of which no wanted inputs were seen."""
        weights, kind = choice.weights, SUMS.get(self.method)
        sums = input_sums(module, weights, kind, ctx, self.examples) if kind else {}
        blocks = {weight.name: weight.blocks(module) for weight in weights}
        if self.scope == "global":
            blocks = pruned_together(blocks, share_of(amount))
        else:
            blocks = {name: pruned(own, amount, self.method, sums.get(name)) for name, own in blocks.items()}
        changed = {weight.name: weight.stored(module, blocks[weight.name]) for weight in weights}
        return changed, [name for name in changed if kind and name not in sums]

    def _report(
        self,
        module: nn.Module,
        choice: Choice,
        unmet: Sequence[str],
        errors: Mapping[str, float],
        steps: list[JsonValue],
        ctx: Context,
    ) -> None:
        rows: dict[str, JsonValue] = {}
        for name in choice.names:
            zeros, size = _zeros(module, [name])
            if zeros == size:
                ctx.warn(f"`{name}` is zero altogether; name its layer in `ignore`, or ask for fewer zeros")
            method = "magnitude" if name in unmet else self.method
            row: dict[str, JsonValue] = {"weights": size, "zeros": zeros, "sparsity": zeros / size, "method": method}
            rows[name] = {**row, "output_error": errors.get(name)}
        zeros, size = _zeros(module, choice.names)
        report: dict[str, JsonValue] = {
            "requested": self.pattern or self.sparsity,
            "achieved": zeros / size,
            "of_all_parameters": zeros / torch_params(module),
            "steps": steps,
            "dense": [*choice.ends, *choice.nonlinear, *choice.others],
            "layers": rows,
        }
        ctx.report("sparsity", report)


def _zeros(module: nn.Module, names: Sequence[str]) -> tuple[int, int]:
    """How many numbers of some parameters are zero, and how many there are."""
    parameters = [module.get_parameter(name) for name in names]
    return sum(int((p == 0).sum()) for p in parameters), sum(p.numel() for p in parameters)
