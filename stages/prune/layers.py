"""Depth: whole blocks of a residual network or a transformer leave, those that change the answers least."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import Field, JsonValue

from pipeline.base.formatting import few
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Note, ShrinkError, StageError
from pipeline.model import Model, TorchModel
from pipeline.stage import Stage
from stages.prune.allocation.effects import EXAMPLES, Answers
from stages.prune.coupling.telling import cost, costs, counted, far_below
from stages.prune.depth.blocks import find, without
from stages.prune.depth.bypass import USE, bypassed
from stages.prune.ignored import ignored
from stages.prune.settings import Pruning

SOME = "blocks in an nn.Sequential or nn.ModuleList that give values of the shape that they read"

Blocks = dict[str, Any]


class LayerPruning(Pruning, Stage):
    """A shallower network: blocks that change the answers least are left out, until at most the target remains.

    Choose it for residual networks and transformers where latency counts: fewer layers are faster on any hardware, at
    any width. Give it `recovery`, and few blocks at a time.

    Example:
        - {use: prune.layers, blocks: 4, recovery: {epochs: 3}}

    Reference: Xin Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", 2024,
    arXiv:2403.03853, with the change of the answers in place of a block's own; Bo-Kyeong Kim et al., "Shortened LLaMA:
    Depth Pruning for Large Language Models with Comparison of Retraining Methods", 2024, arXiv:2402.02834.
    """

    narrows: ClassVar[bool] = True
    targets: ClassVar[tuple[str, ...]] = ("macs", "params", "blocks")

    blocks: int | None = Field(None, ge=0, description="that stay at most, of those that can be left out")
    macs: float | None = Field(None, gt=0, lt=1, description="share of the MACs kept, at most")
    params: float | None = Field(None, gt=0, lt=1, description="share of the parameters kept, at most")
    ignore: tuple[str, ...] = Field((), description="blocks, or parts with blocks, that stay; with * for any letters")
    examples: int = Field(EXAMPLES, ge=1, description="calibration examples at most, on which answers are compared")

    def chooses_by_answers(self) -> bool:
        """Which blocks leave."""
        return True

    def outlook(self, model: Model, before: Sequence[Stage], preview: Preview) -> Model | None:
        """The model with all blocks: trained weights tell which of them leave."""
        return model

    def leaves_out(self) -> bool:
        """Blocks."""
        return True

    def reach(self, model: Model, before: Sequence[Stage] = ()) -> Iterable[str]:
        """Which blocks can be left out; refuse a model without any, and a target that is out of reach."""
        if not isinstance(model, TorchModel):
            return
        blocks, others = self._blocks(model, ConfigError)
        yield Note(f"can be left out: {counted([*blocks], 'block')}")
        if others:
            yield Note(
                f"these stay, for they give another shape than they read, or others read more of them: {few(others)}"
            )
        self._expect_fewer(blocks, ConfigError)
        is_known = self.blocks is None and not any(stage.narrows for stage in before)
        if is_known and self._share(model, blocks) > self._target[1]:
            raise ConfigError(self._out_of_reach(model, blocks), fix=self._fix)

    def run(self, model: TorchModel, ctx: Context) -> TorchModel:
        """The shallower, and where asked trained, model.

        Raises:
            StageError: no block can be left out, the target cannot be reached, a name in `ignore` is not there, or the
                model is quantized.
        """
        self._expect_floats(model.module)
        blocks, _ = self._blocks(model, StageError)
        self._expect_fewer(blocks, StageError)
        teachers = self.recovery.open(model, ctx) if self.recovery else []
        gone, steps = self._chosen(model, blocks, ctx)
        if not gone:
            raise StageError("the model is within the target already", fix="Lower the target, or leave the stage out")
        smaller = model.edited(USE, blocks=gone)
        self._report(model, smaller, blocks, gone, steps, ctx)
        return self.recovery.retrained(teachers, smaller, ctx, "recovery") if self.recovery else smaller

    def _expect_fewer(self, blocks: Blocks, error: type[ShrinkError]) -> None:
        if self.blocks is not None and self.blocks >= len(blocks):
            problem = f"blocks that can be left out: {len(blocks)}, of them to stay: {self.blocks}"
            raise error(problem, expected=f"fewer than {len(blocks)} to stay")

    def _chosen(self, model: TorchModel, blocks: Blocks, ctx: Context) -> tuple[Blocks, list[JsonValue]]:
        """The blocks to leave out, each time the one whose absence changes the answers least, and all changes."""
        trial, answers = copy.deepcopy(model.module), Answers(model.module, ctx, self.examples)
        gone: Blocks = {}
        steps: list[JsonValue] = []
        with ctx.progress("blocks", len(blocks)) as advance:
            while not self._is_reached(model, blocks, gone):
                changes: dict[str, float] = {}
                for name in [name for name in blocks if name not in gone]:
                    with without(trial, gone | {name: blocks[name]}):
                        changes[name] = answers.change(trial)
                if not changes:
                    raise StageError(self._out_of_reach(model, gone), fix=self._fix)
                least = min(changes, key=changes.__getitem__)
                gone[least] = blocks[least]
                steps.append({"block": least, "effects": {**changes}})
                advance(1, f"without {least}")
        return gone, steps

    def _blocks(self, model: TorchModel, error: type[ShrinkError]) -> tuple[Blocks, list[str]]:
        blocks, others = find(model.module, model.example, ignored(model.module, self.ignore, error))
        if not blocks:
            raise error("no block can be left out", expected=SOME)
        return blocks, others

    def _is_reached(self, model: TorchModel, blocks: Blocks, gone: Blocks) -> bool:
        if self.blocks is not None:
            return len(blocks) - len(gone) <= self.blocks
        return self._share(model, gone) <= float(self._target[1])

    def _share(self, model: TorchModel, gone: Blocks) -> float:
        """Of the cost, without some blocks."""
        shallower = bypassed(copy.deepcopy(model.module), gone)
        before, after = (cost(self._target[0], module, model.example) for module in (model.module, shallower))
        return after / before

    def _out_of_reach(self, model: TorchModel, gone: Blocks) -> str:
        share = self._share(model, gone)
        return f"without all blocks that can be left out {share:.3f} of the {self._target[0]} remain"

    @property
    def _fix(self) -> str:
        return f"Set {self._target[0]} to more than that, or shorten `ignore`"

    def _report(
        self, before: TorchModel, after: TorchModel, blocks: Blocks, gone: Blocks, steps: list[JsonValue], ctx: Context
    ) -> None:
        name, requested = self._target
        rest: list[JsonValue] = [block for block in blocks if block not in gone]
        target: dict[str, JsonValue] = {"target": name, "requested": requested, "gone": [*gone], "left": rest}
        ctx.report("depth", {**target, **costs(before, after), "steps": steps})
        if name != "blocks":
            for note in far_below(name, requested, self._share(before, gone), "whole blocks leave"):
                ctx.warn(note)
