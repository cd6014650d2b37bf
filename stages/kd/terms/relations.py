"""Relations, as a term: between the examples of a batch (RKD), and between the positions of a sequence (MiniLM)."""

from math import gcd
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.base.targets.labelling import Kind
from pipeline.errors import ConfigError
from stages.kd.inspection.attention import Attention, attention_at, input_of, stacks
from stages.kd.inspection.hooks import Hook, require_layer
from stages.kd.losses.relations import angle_loss, attention_divergence, attention_relation_loss, distance_loss
from stages.kd.terms.term import LayerMethod, ModelOutputs, Term, TermInputs, refuse_strangers

OWN = {"examples": ("distance_weight", "angle_weight"), "self_attention": ("parts", "relation_heads", "mask")}
Part = Literal["attention", "queries", "keys", "values"]


class RelationMethod(LayerMethod):
    """Compares relations; see `RelationDistillation`."""

    kind: Literal["examples", "self_attention"] = Field(
        "examples", description="between the examples of a batch, or the positions of a transformer's sequence"
    )
    layer: tuple[int | str, int | str] | None = Field(
        None,
        description="[student's, teacher's]; null: what the last linear layer is given, or the last self-attention",
    )
    distance_weight: float = Field(25.0, ge=0, description="examples: of the distances between two")
    angle_weight: float = Field(50.0, ge=0, description="examples: of the angles among three")
    parts: tuple[Part, ...] = Field(
        ("queries", "keys", "values"),
        min_length=1,
        description="self_attention: what is compared (MiniLMv2); [attention, values] is MiniLM",
    )
    relation_heads: int | None = Field(
        None, gt=0, description="self_attention: heads that both are split into; null: the teacher's"
    )
    mask: str | None = Field(None, description="self_attention: the input (N, L) that is 0 at padding")

    @model_validator(mode="after")
    def _fitting(self) -> "RelationMethod":
        refuse_strangers(self, "kind", OWN)
        if self.kind == "examples" and not all(isinstance(name, str) for name in self.layer or ()):
            raise ValueError("`kind: examples` takes names of layers")
        if self.kind == "examples" and self.distance_weight + self.angle_weight == 0:
            raise ValueError("nothing is left to compare: both weights are 0")
        return self

    def refusal(self, kind: Kind) -> tuple[str, str] | None:
        """Between examples one vector of each is compared, which the last linear layer of a dense task has not."""
        if self.kind == "self_attention" or self.layer or kind != "dense":
            return None
        return "`kind: examples` compares one vector an example", "Name a `layer` of both models that gives one"

    def watch(self, student: nn.Module, teacher: nn.Module) -> tuple[list[Hook], list[Hook]]:
        """One layer, or the queries, keys and values of one block of self-attention, in that order."""
        ours, theirs = self.layer or (None, None)
        if self.kind == "examples":
            return [_representation(student, ours, "student")], [_representation(teacher, theirs, "teacher")]
        student_block = attention_at(stacks(student, "student"), -1 if ours is None else ours, "student")
        teacher_block = attention_at(stacks(teacher, "teacher"), -1 if theirs is None else theirs, "teacher")
        self._check_heads(student_block, teacher_block)
        return _reads(student_block), _reads(teacher_block)

    def compare(self, student: ModelOutputs, teacher: ModelOutputs, adapter: nn.Module, inputs: TermInputs) -> Tensor:
        """The weighted sum over examples' relations, or the sum over the parts of self-attention."""
        if self.kind == "examples":
            return self._of_examples(student.layers[0], teacher.layers[0])
        mask, heads = inputs.mask(self.mask), self.relation_heads or teacher.layers[0].shape[1]
        ours, theirs = (dict(zip(("queries", "keys", "values"), s.layers, strict=True)) for s in (student, teacher))
        losses = [
            attention_divergence(student.layers, teacher.layers, mask=mask)
            if part == "attention"
            else attention_relation_loss(ours[part], theirs[part], heads, mask=mask)
            for part in self.parts
        ]
        return torch.stack(losses).sum()

    def _of_examples(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weights of 0 cost nothing: angles take memory that grows as the cube of the batch."""
        parts = ((self.distance_weight, distance_loss), (self.angle_weight, angle_loss))
        return torch.stack([weight * loss(student, teacher) for weight, loss in parts if weight > 0]).sum()

    def _check_heads(self, student: Attention, teacher: Attention) -> None:
        heads, common = self.relation_heads or teacher.heads, gcd(student.width, teacher.width)
        if set(self.parts) - {"attention"} and common % heads:
            widths = f"the widths {student.width} and {teacher.width} of attention"
            expected = f"`relation_heads` that divides {common}"
            raise ConfigError(f"{heads} relation heads do not divide {widths}", expected=expected)
        if "attention" in self.parts and student.heads != teacher.heads:
            problem = f"the student has {student.heads} attention heads, the teacher {teacher.heads}"
            expected = "as many, to compare `attention` itself"
            raise ConfigError(problem, expected=expected, fix="Use `parts: [queries, keys, values]`")


class Relations(RelationMethod, Term):
    """Relations."""


def _reads(block: Attention) -> list[Hook]:
    return [block.query, block.key, block.value]


def _representation(module: nn.Module, name: int | str | None, whose: str) -> Hook:
    """The output of the named layer, or what the last linear layer is given."""
    if name is not None:
        require_layer(module, str(name), whose)
        return Hook(str(name))
    linear = [layer for layer, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise ConfigError(f"the {whose} has no nn.Linear", fix="Name a `layer`: [student's, teacher's]")
    return Hook(linear[-1], input_of)
