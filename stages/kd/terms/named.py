"""Terms by name: what `terms:` in a config lists."""

from typing import Annotated

from annotated_types import MinLen
from pydantic import BeforeValidator, SerializeAsAny, WithJsonSchema

from pipeline.base.data.named import Named
from stages.kd.terms.term import Term

NAMED = Named(Term, "stages.kd.terms", "term", "{use: logits}")
ENTRY = {"anyOf": [{"type": "string"}, {"type": "object", "required": ["use"]}]}

Terms = Annotated[
    tuple[SerializeAsAny[Term], ...],
    BeforeValidator(NAMED.parse),
    MinLen(1),
    WithJsonSchema({"type": "array", "minItems": 1, "items": ENTRY}),
]
"""The type of a `terms:` setting."""
