"""Attention, as a term: activation maps of CNNs, and scores, hidden states and embeddings of transformers."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.errors import ConfigError
from stages.kd.inspection.attention import Attention, attention_at, input_of, stacks
from stages.kd.inspection.hooks import Hook
from stages.kd.losses.attention import activation_transfer_loss, attention_loss, attention_scores
from stages.kd.losses.features import hint_loss
from stages.kd.terms.features import regressor, require_layers
from stages.kd.terms.term import LayerMethod, ModelOutputs, Term, TermInputs, refuse_strangers

OWN = {"maps": ("power", "map_weight"), "transformer": ("mapping", "scores", "hidden", "embeddings", "mask")}
Pair = tuple[Attention, Attention]


class AttentionMethod(LayerMethod):
    """Compares attention; see `AttentionDistillation`."""

    kind: Literal["maps", "transformer"] = Field(
        "maps", description="activation maps of convolutions, or a transformer's scores and hidden states"
    )
    layers: tuple[tuple[int | str, int | str], ...] = Field(
        (), description="pairs [student's, teacher's]: names; of a transformer also positions, instead of mapping"
    )
    power: float = Field(2.0, ge=1, description="maps: of the channels that are added up")
    map_weight: float = Field(1000.0, gt=0, description="maps: factor of each pair's mean squared difference")
    mapping: Literal["uniform", "last"] = Field(
        "uniform", description="transformer: evenly spaced layers of the teacher, or its last ones"
    )
    scores: bool = Field(True, description="transformer: compare attention before the softmax")
    hidden: bool = Field(True, description="transformer: compare what the layers give")
    embeddings: bool = Field(True, description="transformer: compare what the first layer is given")
    mask: str | None = Field(None, description="transformer: the input (N, L) that is 0 at padding")

    @model_validator(mode="after")
    def _fitting(self) -> "AttentionMethod":
        refuse_strangers(self, "kind", OWN)
        if self.kind == "maps" and not (self.layers and all(isinstance(name, str) for name in sum(self.layers, ()))):
            raise ValueError("`kind: maps` needs `layers`: [[student's name, teacher's name], ...]")
        if self.kind == "transformer" and not (self.scores or self.hidden or self.embeddings):
            raise ValueError("nothing is left to compare: set `scores`, `hidden` or `embeddings`")
        if self.layers and self.mapping != "uniform":
            raise ValueError("`mapping` is of no use beside `layers`")
        return self

    def watch(self, student: nn.Module, teacher: nn.Module) -> tuple[list[Hook], list[Hook]]:
        """The named layers; of transformers the embeddings, the hidden states, then queries and keys."""
        if self.kind == "maps":
            names = [(str(ours), str(theirs)) for ours, theirs in self.layers]
            require_layers(student, teacher, names)
            return [Hook(ours) for ours, _ in names], [Hook(theirs) for _, theirs in names]
        both = stacks(student, "student"), stacks(teacher, "teacher")
        pairs = self._given(*both) if self.layers else list(mapped(*both, self.mapping))
        if self.scores:
            _same_heads(pairs)
        ours, theirs = zip(*pairs, strict=True)
        return self._hooks(ours, both[0]), self._hooks(theirs, both[1])

    def adapter(self, student: ModelOutputs, teacher: ModelOutputs) -> nn.Module:
        """For each hidden state that is compared, what gives it the teacher's width.

        One projection is shared by all layers, as in the paper; the embeddings have their own.
        """
        if self.kind == "maps":  # which have no channels
            return nn.Identity()
        count, shared = self._states(student), int(self.embeddings)
        first = [regressor(student.layers[0], teacher.layers[0], "the embeddings")] if self.embeddings else []
        if count == shared:
            return nn.ModuleList(first)
        states = list(zip(student.layers[shared:count], teacher.layers[shared:count], strict=True))
        if len({(ours.shape[-1], theirs.shape[-1]) for ours, theirs in states}) > 1:
            raise ConfigError("the widths of the layers differ, and their projection is shared", fix="Use features")
        return nn.ModuleList(first + [regressor(*states[0], "the transformer's layers")] * len(states))

    def compare(self, student: ModelOutputs, teacher: ModelOutputs, adapter: nn.Module, inputs: TermInputs) -> Tensor:
        """The sum over all that is compared, each with weight 1, of maps with `map_weight`."""
        pairs = list(zip(student.layers, teacher.layers, strict=True))
        if self.kind == "maps":
            losses = [activation_transfer_loss(ours, theirs, self.power) for ours, theirs in pairs]
            return self.map_weight * torch.stack(losses).sum()
        mask, count = inputs.mask(self.mask), self._states(student)
        projections = adapter if isinstance(adapter, nn.ModuleList) else ()
        states = zip(projections, pairs[:count], strict=True)
        losses = [hint_loss(project(ours), theirs, mask=mask) for project, (ours, theirs) in states]
        attended = zip(_scores(student.layers[count:]), _scores(teacher.layers[count:]), strict=True)
        losses += [attention_loss(ours, theirs, mask=mask) for ours, theirs in attended]
        return torch.stack(losses).sum()

    def _given(self, student: list[list[Attention]], teacher: list[list[Attention]]) -> list[Pair]:
        return [
            (attention_at(student, ours, "student"), attention_at(teacher, theirs, "teacher"))
            for ours, theirs in self.layers
        ]

    def _hooks(self, blocks: Sequence[Attention], all_stacks: list[list[Attention]]) -> list[Hook]:
        stack = next(stack for stack in all_stacks if blocks[0] in stack)
        embeddings = [Hook(stack[0].layer, input_of)] if self.embeddings else []
        hidden = [Hook(block.layer) for block in blocks] if self.hidden else []
        return embeddings + hidden + [hook for block in blocks if self.scores for hook in (block.query, block.key)]

    def _states(self, model: ModelOutputs) -> int:
        """How many of the layers that were read are hidden states; after them come a query and a key for each layer."""
        layers = (len(model.layers) - self.embeddings) // max(self.hidden + 2 * self.scores, 1)
        return self.embeddings + layers * self.hidden


class AttentionTerm(AttentionMethod, Term):
    """Attention."""


def mapped(
    student: list[list[Attention]], teacher: list[list[Attention]], mapping: Literal["uniform", "last"]
) -> Iterator[Pair]:
    """Each block of the student with the one of the teacher that it follows, stack by stack.

    Layer m of M, from 1, follows layer m * N / M of N, rounded down, or m + N - M.

    Raises:
        ConfigError: they have not as many stacks, or the student has more layers.

    Reference:
        Jiao et al.: TinyBERT, 2020, 1909.10351, sections 3.1 and 4.6 (uniform and top strategy).
    """
    if len(student) != len(teacher):
        problem = f"the student has {len(student)} stacks of attention, the teacher {len(teacher)}"
        raise ConfigError(problem, expected="as many", fix="Name the `layers`")
    for ours, theirs in zip(student, teacher, strict=True):
        count, of = len(ours), len(theirs)
        if count > of:
            problem = f"the student has {count} layers with attention, the teacher {of}"
            raise ConfigError(problem, expected=f"{of} or fewer", fix="Name the `layers`")
        for i, block in enumerate(ours):
            yield block, theirs[(i + 1) * of // count - 1 if mapping == "uniform" else i + of - count]


def _same_heads(pairs: Iterable[Pair]) -> None:
    for ours, theirs in pairs:
        if ours.heads != theirs.heads:
            problem = f"`{ours.name}` of the student has {ours.heads} attention heads, "
            problem += f"`{theirs.name}` of the teacher {theirs.heads}"
            fix = "Use relations with `kind: self_attention`, which regroup heads, or `scores: false`"
            raise ConfigError(problem, expected="as many, to compare scores", fix=fix)


def _scores(queries_and_keys: Sequence[Tensor]) -> list[Tensor]:
    pairs = zip(queries_and_keys[::2], queries_and_keys[1::2], strict=True)
    return [attention_scores(query, key) for query, key in pairs]
