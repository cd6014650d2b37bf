"""Low-rank factorization: two or three small layers in the place of a large one."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt
from pydantic import Field, JsonValue
from torch import Tensor

from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Note, ShrinkError, StageError
from pipeline.model import Model, TorchModel
from pipeline.stage import Stage
from stages.prune.coupling.telling import check_finite, cost, costs, far_below, with_plain_weights
from stages.prune.ignored import ignored
from stages.prune.ranks.choice import Options, as_told, by_cost, by_energy, named, options
from stages.prune.ranks.decomposition import best, energy, kept
from stages.prune.ranks.factors import USE, fill
from stages.prune.ranks.layers import Cost, Layer, Layers, Ranks, find
from stages.prune.ranks.moments import errors, roots
from stages.prune.ranks.telling import LOSSY, OTHERS, narrow_at, possible, staying, told
from stages.prune.settings import Pruning
from stages.prune.weights import WeightPruning

Rank = Annotated[int, Gt(0)]
Metrics = Mapping[str, Tensor]
"""By layer, of those that are not measured by their weights alone; see `roots`."""


class LowRankFactorization(Pruning, Stage):
    """The same network with two or three smaller layers in the place of large linear layers and convolutions.

    Choose it for wide linear layers, as of transformers, which channel pruning leaves whole, and for convolutions of 64
    channels and more: narrower ones hardly get faster. Give it `recovery`, and put it before quantization.

    Example:
        - {use: prune.lowrank, macs: 0.6, recovery: {epochs: 5}}

    Reference: Tucker-2, Y. Kim, E. Park, S. Yoo, T. Choi, L. Yang, D. Shin, "Compression of Deep Convolutional Neural
    Networks for Fast and Low Power Mobile Applications", 2015, arXiv:1511.06530, section 3.1. `metric: activations`: X.
    Zhang, J. Zou, K. He, J. Sun, "Accelerating Very Deep Convolutional Networks for Classification and Detection",
    2015, arXiv:1505.06798, section 3.1, without the mean. `method: spatial`: C. Tai, T. Xiao, Y. Zhang, X. Wang, W. E,
    "Convolutional neural networks with low-rank regularization", 2015, arXiv:1511.06067, theorem 1.
    """

    targets: ClassVar[tuple[str, ...]] = ("macs", "params", "energy", "rank")

    energy: float | None = Field(
        None, gt=0, lt=1, description="share of its squared singular values that each layer keeps, at least"
    )
    macs: float | None = Field(None, gt=0, lt=1, description="share of the MACs kept, at most")
    params: float | None = Field(None, gt=0, lt=1, description="share of the parameters kept, at most")
    rank: Mapping[str, Rank | tuple[Rank, Rank]] | None = Field(
        None,
        min_length=1,
        description="ranks by layer, with * for any letters, where the one of most letters counts; of Tucker one, or a "
        "pair for what goes in and out",
    )
    metric: Literal["activations", "weights"] = Field(
        "activations", description="what is lost least: of what layers give on calibration data, or of the weights"
    )
    method: Literal["tucker", "spatial"] = Field(
        "tucker", description="of convolutions with a kernel: 1x1, the kernel, 1x1; or along its axes, 3x1 and 1x3"
    )
    round_to: int = Field(8, gt=0, description="ranks are multiples of it, as kernels like, but for those of `rank`")
    ignore: tuple[str, ...] = Field((), description="layers, or parts with layers, that stay; with * for any letters")

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse quantized weights, and teachers that are not there; warn of zeros that get lost."""
        yield from super().check(before, preview)
        if any(isinstance(stage, WeightPruning) for stage in before):
            yield "layers that become factors lose the zeros of prune.weights: put it behind prune.lowrank"

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Which layers become factors, at which ranks as far as that is known, and which stay, and why.

        Refuse a model of which none can, a target out of reach, and ranks that make a layer no smaller.
        """
        if not isinstance(model, TorchModel):
            return
        notes = list[str]()
        model = with_plain_weights(model, notes.append)
        yield from notes
        layers = self._layers(model, ConfigError)
        yield from map(Note, staying(layers.stay))
        if self.rank is not None:
            yield Note(f"factorizes {told(as_told(layers, self.rank, ConfigError))}")
            return
        if self.energy is None and not any(stage.narrows for stage in before):  # a share of a cost that is known
            self._budget(model, layers.layers, ConfigError)
        yield Note(
            f"can factorize {possible(layers.layers, self.round_to)}; trained weights tell which ranks they take"
        )

    def outlook(self, model: Model, before: Sequence[Stage], preview: Preview) -> Model | None:
        """The layers where `rank` tells them; else trained weights do."""
        if self.rank is None or not isinstance(model, TorchModel):
            return None
        plain = with_plain_weights(model, lambda text: None)
        return _edited(plain, as_told(self._layers(plain, ConfigError), self.rank, ConfigError))

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The factorized, and where asked trained, model.

        Raises:
            StageError: nothing can be factorized, a target cannot be reached, a name in `rank` or `ignore` fits no
                layer, or the model is quantized or has weights that are not finite.
        """
        self._expect_floats(model.module)
        teachers = self.recovery.open(model, ctx) if self.recovery else []
        plain = with_plain_weights(model, ctx.warn)
        check_finite(plain)
        layers = self._layers(plain, StageError)
        for text in staying(layers.stay):
            ctx.warn(Note(text))
        names = [layer.name for layer in layers.layers]
        metrics = roots(plain, names, ctx) if self.metric == "activations" else {}
        ranks = self._chosen(plain, layers, metrics, ctx)
        factored = _edited(plain, ranks)
        self._report(plain, factored, layers, self._filled(plain, factored, ranks, metrics, ctx), ctx)
        return self.recovery.retrained(teachers, factored, ctx, "recovery") if self.recovery else factored

    def _layers(self, model: TorchModel, error: type[ShrinkError]) -> Layers:
        """What can be factorized, of what `rank` names where that is set. Raises `error` where that is nothing."""
        layers, stay = every = find(model, ignored(model.module, self.ignore, error), self.method)
        if self.rank is not None:
            return named(every, self.rank, error)
        narrow = [layer.name for layer in layers if not len(layer.choices(self.round_to))]
        stay |= {narrow_at(self.round_to): narrow} if narrow else {}
        if len(narrow) == len(layers):
            texts = "; ".join(staying(stay)) or "it has no linear layer or convolution outside of `ignore`"
            fix = "Lower `round_to`" if any(layer.largest() for layer in layers) else "Leave this stage out"
            raise error(f"no layer can be factorized: {texts}", fix=fix)
        return Layers([layer for layer in layers if layer.name not in narrow], stay)

    def _budget(self, model: TorchModel, layers: Sequence[Layer], error: type[ShrinkError]) -> int:
        """What the layers may cost together. Raises `error` where they cost more at their lowest ranks."""
        name, share = self._target[0], float(self._target[1])
        full = cost(name, model.module, model.example)
        kind = Cost._fields.index(name)
        rest = full - sum(layer.whole[kind] for layer in layers)
        least = rest + sum(int(layer.costs(layer.choices(self.round_to))[:, kind].min()) for layer in layers)
        if least > share * full:
            attainable = math.ceil(1000 * least / full) / 1000
            problem = f"target {name}: {share:g}: the cost is still {least:,} with all layers at their lowest ranks"
            first = f"Set `{name}: {attainable:g}` or more, lower" if attainable < 1 else "Lower"
            expected = f"at most {share * full:,.0f}"
            raise error(problem, expected=expected, fix=f"{first} `round_to` or shorten `ignore`")
        return math.floor(share * full) - rest

    def _chosen(self, model: TorchModel, layers: Layers, metrics: Metrics, ctx: Context) -> dict[str, Ranks]:
        """The ranks of what becomes factors. Raises StageError where that is nothing."""
        name, target = self._target
        if name == "rank":
            return as_told(layers, target, StageError)
        every = list[Options]()
        with ctx.progress("layers to decompose", len(layers.layers)) as advance:
            for layer in layers.layers:
                table = kept(_weight(model, layer.name), metrics.get(layer.name), layer.count)
                every.append(options(layer, layer.choices(self.round_to), table))
                advance(1)
        if name != "energy":
            return by_cost(every, Cost._fields.index(name), self._budget(model, layers.layers, StageError))
        ranks = {one.name: enough for one in every if (enough := by_energy(one, target))}
        if not ranks:
            most = math.floor(1000 * max(float(one.kept.max()) for one in every)) / 1000
            problem = f"no layer that keeps {target:g} of its energy is smaller"
            raise StageError(
                problem, expected="one at least", fix=f"Set `energy: {most:g}` or less, or lower `round_to`"
            )
        return ranks

    def _filled(
        self, model: TorchModel, factored: TorchModel, ranks: Mapping[str, Ranks], metrics: Metrics, ctx: Context
    ) -> dict[str, Any]:
        """What is reported of each layer, whose factors are given their weights."""
        kept_shares = {}
        for name, numbers in ranks.items():
            weight, root = _weight(model, name), metrics.get(name)
            weights = best(weight, root, numbers)
            fill(factored.module.get_submodule(name).children(), weights)
            kept_shares[name] = energy(weight, weights, root)
        lost = errors(model, factored, [*ranks], ctx)
        return {n: {"ranks": [*ranks[n]], "energy": share, "error": lost[n]} for n, share in kept_shares.items()}

    def _report(
        self, before: TorchModel, after: TorchModel, layers: Layers, changed: dict[str, Any], ctx: Context
    ) -> None:
        name, requested = self._target
        left = [layer.name for layer in layers.layers if layer.name not in changed]
        stay = {LOSSY if name == "energy" else OTHERS: left} if left else {}
        notes, achieved = [*map(Note, staying(stay))], min(entry["energy"] for entry in changed.values())
        if name in Cost._fields:
            achieved = cost(name, after.module, after.example) / cost(name, before.module, before.example)
            why = f"ranks are multiples of round_to = {self.round_to}, a smaller one comes closer"
            notes += far_below(name, requested, achieved, why)
        for note in notes:
            ctx.warn(note)
        report: dict[str, JsonValue] = {
            "target": name,
            "requested": self.model_dump(mode="json")[name],
            "achieved": None if name == "rank" else achieved,
            **costs(before, after),
            "layers": changed,
            "stay": {why: [*names] for why, names in (layers.stay | stay).items()},
        }
        ctx.report("lowrank", report)


def _edited(model: TorchModel, ranks: Mapping[str, Ranks]) -> TorchModel:
    return model.edited(USE, layers={name: [*numbers] for name, numbers in ranks.items()})


def _weight(model: TorchModel, name: str) -> Tensor:
    return model.module.get_parameter(f"{name}.weight").detach().cpu()
