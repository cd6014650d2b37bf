"""Attributes of ONNX nodes that say what holds without them: bytes of a small file that no runtime needs."""

from collections.abc import Iterable

import onnx

ONES, ZEROS = ("strides", "dilations"), ("pads",)
WINDOWS = ("Conv", "ConvTranspose", "AveragePool", "MaxPool")
"""Operators of which the standard says in words that strides and dilations are 1 and pads 0 unless given."""


def drop_defaults(nodes: Iterable[onnx.NodeProto], opset: int) -> None:
    """Remove from nodes of the standard domain each attribute that has its default value."""
    for node in nodes:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
            continue
        known = onnx.defs.get_schema(node.op_type, opset).attributes
        kept = [given for given in node.attribute if not _is_default(node.op_type, given, known)]
        del node.attribute[:]
        node.attribute.extend(kept)


def _is_default(operator: str, given: onnx.AttributeProto, known: dict[str, onnx.defs.OpSchema.Attribute]) -> bool:
    if operator in WINDOWS and given.name in ONES + ZEROS:
        return set(given.ints) == {1 if given.name in ONES else 0}
    default = known[given.name].default_value if given.name in known else None
    if default is None or default.type != given.type:
        return False
    value = onnx.helper.get_attribute_value
    return bool(value(default) == value(given))
