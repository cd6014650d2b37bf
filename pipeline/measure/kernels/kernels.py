"""The proof that a stage's file is faster than the one that came in, or what keeps it from being so."""

from collections.abc import Iterable, Sequence

import onnx

from pipeline.base.estimate import Estimate
from pipeline.measure.kernels.compared import compared
from pipeline.measure.kernels.facts import BLOCKED, Facts, Graph, Node, share_of_macs, share_of_time, this_cpu
from pipeline.measure.kernels.floats import fallbacks
from pipeline.measure.kernels.labels import labels
from pipeline.measure.kernels.look import graph_of
from pipeline.measure.kernels.patterns.alarm import Alarm
from pipeline.measure.kernels.patterns.known import alarms
from pipeline.measure.kernels.seen import eye
from pipeline.measure.kernels.turns import Timed
from pipeline.model import OnnxModel
from pipeline.records.parts.kernels import Fallback, KernelAlarm, Kernels, OperatorUse

PROFILED_SECONDS, MOST_PROFILED = 0.2, 10
"""So long a file is profiled, but once at least and not more often than that."""


def is_another_graph(before: OnnxModel, after: OnnxModel) -> bool:
    """Whether two files have other operators, or weights of other shapes or types; training alone changes none."""
    return _outline(before) != _outline(after)


def kernels_of(before: OnnxModel, after: OnnxModel) -> Kernels:
    """How the file after a stage runs on this machine, beside the one before it.

    Raises:
        ConfigError: a file from outside did not pass the check.
        ForeignError: it crashed its process.
        StageError: ONNX Runtime does not load or run it.
    """
    one, other = _timed(before), _timed(after)
    with eye(after) as looks:
        ratio, slower, seconds = compared(looks, one, other)
        seen = looks.look(other, max(1, min(MOST_PROFILED, round(PROFILED_SECONDS / seconds))))
    file = Graph.of(graph_of(after.path))
    facts = Facts(Graph.of(seen["graph"]), file, slower, labels(Graph.of(graph_of(before.path)), file))
    known = alarms(facts, this_cpu())
    is_counted = not seen["uncounted"] and all(node.macs is not None for node in facts.products())
    integers = [node for node in facts.products() if node.is_integer]
    return Kernels(
        operators=[*_operators(facts)],
        integer_macs=share_of_macs(integers, facts) if is_counted else None,
        ratio=ratio,
        ratio_reason=None if ratio else f"one inference takes {seconds:.1f} s; benchmark.latency times it",
        slower=slower,
        alarms=[_told(alarm, facts) for alarm in known],
        floats=[*_floats(facts, known)],
    )


def latency_ratio(before: OnnxModel, after: OnnxModel) -> Estimate | None:
    """The latency of one example after over before, in turns on one thread; None where it takes too long to tell.

    Errors are those of `kernels_of`.
    """
    with eye(after) as looks:
        return compared(looks, _timed(before), _timed(after)).ratio


def _timed(model: OnnxModel) -> Timed:
    one = {name: value[:1] for name, value in model.example.items()}
    feed = next(model.calls(one))
    return Timed(model.path, {name: value.cpu().numpy() for name, value in feed.items()})


def _operators(facts: Facts) -> Iterable[OperatorUse]:
    """A row an operator, those that take most of the time first."""
    groups: dict[tuple[str, bool], list[Node]] = {}
    for node in facts.run.nodes:
        name = f"{node.operator} in blocks" if node.domain == BLOCKED and node.is_product else node.operator
        groups.setdefault((name, node.is_integer), []).append(node)
    is_timed = any(node.microseconds for node in facts.run.nodes)
    for (name, is_integer), nodes in sorted(groups.items(), key=lambda group: -share_of_time(group[1], facts)):
        macs = [node.macs for node in nodes]
        total = None if None in macs else sum(count or 0 for count in macs)
        share = round(share_of_time(nodes, facts), 4) if is_timed else None
        yield OperatorUse(operator=name, count=len(nodes), integer=is_integer, macs=total, time_share=share)


def _told(alarm: Alarm, facts: Facts) -> KernelAlarm:
    nodes = [*dict.fromkeys(map(facts.label, alarm.nodes))]
    return KernelAlarm(pattern=alarm.pattern, nodes=nodes, why=alarm.why, remedy=alarm.remedy)


def _floats(facts: Facts, known: Sequence[Alarm]) -> Iterable[Fallback]:
    groups: dict[tuple[str, str], list[str]] = {}
    for node, why in fallbacks(facts, known):
        groups.setdefault((node.operator, why), []).append(facts.label(node))
    for (operator, why), nodes in groups.items():
        yield Fallback(nodes=nodes, operator=operator, why=why)


def _outline(model: OnnxModel) -> list[object]:
    """Operators with their attributes, and the shapes and types of weights, in their order."""
    graph = onnx.load(model.path, load_external_data=False).graph
    nodes = [(node.domain, node.op_type, len(node.input), [*map(_plain, node.attribute)]) for node in graph.node]
    return [*nodes, *((tensor.data_type, *tensor.dims) for tensor in graph.initializer)]


def _plain(attribute: onnx.AttributeProto) -> object:
    return attribute.name, attribute.i, attribute.f, attribute.s, [*attribute.ints]
