"""YAML as pipeline files have it: the scalars of YAML 1.2, and no text that grows, is cut or refers to itself."""

import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
"""What the scalars of YAML 1.2's core schema are, and what they begin with."""
MOST_NODES = 20_000
UNWRITABLE = re.compile("[\0\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: to PyYAML, which reads 1.1, 1e-3 is a string, 010 is 8, 1:30 is 90, and yes is true, or 1.

    A value that its tag does not fit has a line.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """What a node stands for."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # such as of a date 2020-13-45
            problem = f"a value does not fit its tag {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, problem, node.start_mark) from None


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    """A whole number; with zeros in front it is a decimal one."""
    text = str(loader.construct_scalar(node))
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in SCALARS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, (_pattern, _first) in SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), [*_first])
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)


def parse(text: str) -> Any:
    """What a text of YAML holds. Raises YAMLError, and RecursionError where it is nested too deep."""
    compose(text)
    loader = _Loader(text)
    try:
        return _unshared(loader.get_single_data())
    finally:
        loader.dispose()


def compose(text: str) -> yaml.Node | None:
    """The nodes of a text, of which there are not too many where each alias stands for a copy, and no text is cut.

    Raises:
        YAMLError: it is not YAML, or aliases of aliases make it too large.
    """
    node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    if node:
        _count(node, {})
    return node


def _count(node: yaml.Node, counts: dict[yaml.Node, int]) -> int:
    """Nodes below and with this one; of one that is counted already, or is just being, see `counts`."""
    if node in counts:
        if counts[node]:
            return counts[node]
        raise ComposerError(None, None, "an alias refers to what it stands in", node.start_mark)
    counts[node] = 0
    if isinstance(node, yaml.ScalarNode):
        inner = []
        if UNWRITABLE.search(node.value):
            raise ComposerError(None, None, "a text has a character that no file has", node.start_mark)
    else:
        inner = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
    counts[node] = 1 + sum(_count(part, counts) for part in inner)
    if counts[node] > MOST_NODES:
        problem = f"it has more than {MOST_NODES:,} values where aliases are what they stand for"
        raise ComposerError(None, None, problem, node.start_mark)
    return counts[node]


def _unshared(value: Any) -> Any:
    """The same with a copy for each alias, so that what is changed in one place stays as it is in the others."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value
