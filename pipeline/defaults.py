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
        schema_attributes = onnx.defs.get_schema(node.op_type, opset).attributes
        explicit_attributes = [
            attribute for attribute in node.attribute if not _is_default(node.op_type, attribute, schema_attributes)
        ]
        del node.attribute[:]
        node.attribute.extend(explicit_attributes)


def _is_default(
    operator: str, attribute: onnx.AttributeProto, schema_attributes: dict[str, onnx.defs.OpSchema.Attribute]
) -> bool:
    if operator in WINDOWS and attribute.name in ONES + ZEROS:
        return set(attribute.ints) == {1 if attribute.name in ONES else 0}
    default = schema_attributes[attribute.name].default_value if attribute.name in schema_attributes else None
    if default is None or default.type != attribute.type:
        return False
    value = onnx.helper.get_attribute_value
    return bool(value(default) == value(attribute))
