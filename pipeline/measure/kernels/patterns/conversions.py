"""Conversions that cost more than they bring, and operators that only a slow kernel takes."""

from collections.abc import Iterator

from pipeline.measure.kernels.facts import CONVERSIONS, MOVES, Cpu, Facts, Node, share_of_macs, share_of_time
from pipeline.measure.kernels.patterns.alarm import Alarm

WEIGHTS = {
    "DynamicQuantizeMatMul": 1, "MatMulInteger": 1, "MatMulIntegerToFloat": 1, "QGemm": 3, "QLinearConv": 3,
    "QLinearMatMul": 3,
}  # fmt: skip
"""Which of their inputs are weights."""
ZEROS = 3
"""Which input of MatMulNBits has the zero points."""
AT_RUN_TIME = "weights dequantized at run time"
TINY = 100_000
"""MACs of a product that is done before its inputs are converted."""
MUCH = 0.1
"""The share of all MACs from which on something is worth an alarm."""


def for_nothing(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Values that are quantized and at once dequantized again, for operators of floats such as norms."""
    run, nodes = facts.run, dict[str, Node]()
    for node in run.nodes:
        back = run.readers(node) if node.operator == "QuantizeLinear" else []
        if back and all(reader.operator == "DequantizeLinear" for reader in back):
            readers = [reader for one in back for reader in run.readers(one)]
            if all(_computes_floats(reader, facts) for reader in readers):
                nodes |= {reader.outputs[0]: reader for reader in readers}
    if nodes:
        why = (
            "its input is quantized and at once dequantized again: it is computed in floats and has no integer kernel "
            "(as LayerNormalization has none), so the two conversions cost time and digits for nothing"
        )
        yield Alarm("conversions for nothing", [*nodes.values()], why, "Leave it out of the operators to quantize")


def dynamic_convolution(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Convolutions that were quantized dynamically."""
    nodes = [node for node in facts.run.nodes if node.operator == "ConvInteger"]
    if nodes:
        why = (
            "convolutions that are quantized dynamically have a slow kernel (ConvInteger), with which nothing is fused"
        )
        yield Alarm("dynamic convolution", nodes, why, "Quantize convolutions with quantize.static")


def half_precision(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Half precision that is made single precision and back again around the operators."""
    run = facts.run
    casts = [n for n in run.nodes if n.operator == "Cast" and _is_float(n) and not run.is_constant(n.inputs[0])]
    products = [*facts.products()]
    if len(casts) >= max(len(products), 3):
        why = (
            f"{len(casts)} Casts between half and single precision are run beside {len(products)} products: this CPU's "
            "kernels are of single precision"
        )
        remedy = (
            "Store weights alone in half precision, with Casts that are done once at loading, and compute in float32"
        )
        yield Alarm("casts of half precision", casts, why, remedy)


def tiny_products(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Products so small that converting their inputs takes longer than they do; where the file is slower, too."""
    integers = [node for node in facts.products() if node.is_integer]
    largest = max((node.macs or 0 for node in integers), default=0)
    if facts.slower and 0 < largest < TINY and share_of_macs(integers, facts) > 1 - MUCH:
        why = (
            f"no product of integers sums more than {largest:,} MACs: converting their inputs takes longer than they do"
        )
        yield Alarm("tiny products", integers, why, "Leave so small a network in floats, or run larger batches")


def slow_integers(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Weights of uint8, whose kernels on x86 are those without the instructions for uint8 times int8."""
    nodes = [node for node in facts.products() if cpu.is_x86 and _weight_kind(node, facts) == "uint8"]
    if share_of_macs(nodes, facts) > MUCH:
        why = "its weights are uint8: the kernel for uint8 times uint8 is two to three times slower than that for int8"
        yield Alarm("uint8 weights", nodes, why, "Quantize weights to int8")


def groups(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Integer convolutions in groups of several channels, which are done one group after the other."""
    nodes = []
    for node in facts.products():
        group = int(node.attributes.get("group", 1))
        weight = facts.run.shapes.get(node.inputs[3], [0, 0]) if node.operator == "QLinearConv" else [0, 0]
        if group > 1 and weight[1] > 1:
            nodes.append(node)
    if share_of_macs(nodes, facts) > MUCH and (facts.slower or share_of_time(nodes, facts) > 0.3):
        why = "its channels are in groups, which the integer kernel does one after the other; that for floats is faster"
        yield Alarm("grouped convolution", nodes, why, "Name it in `exclude`, so that it stays in floats")


def few_bits(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """MatMulNBits that makes floats of its weights at each run, or has a slow kernel; where the file is slower."""
    nodes = [node for node in facts.products() if node.operator == "MatMulNBits"]
    plain = [n for n in nodes if not n.is_integer and (facts.slower or n.attributes.get("bits") == 8)]
    if plain:
        why = "it has no accuracy_level, so its weights are made floats again at each run"
        yield Alarm(AT_RUN_TIME, plain, why, "Set accuracy_level to 4 when quantizing its weights")
    fractional = [n for n in nodes if len(n.inputs) > ZEROS and "float" in facts.run.constants.get(n.inputs[ZEROS], "")]
    if facts.slower and fractional:
        why = "its zero points lie between whole numbers, for which the kernel is slow"
        yield Alarm(
            AT_RUN_TIME, fractional, why, "Quantize with whole zero points: quantize.weights, `method: k_quant`"
        )
    smallest = [node for node in nodes if node.attributes.get("bits") == 2]
    if facts.slower and smallest and cpu.is_x86:
        yield Alarm("weights of 2 bits", smallest, "the kernel for 2 bits is slow on x86", "Quantize to 4 bits")


def _computes_floats(node: Node, facts: Facts) -> bool:
    """Whether an operator does something else with one value than moving it or summing products of it."""
    operands = [name for name in node.inputs if name and not facts.run.is_constant(name)]
    return len(operands) == 1 and not (node.is_product or node.is_integer or node.operator in (*CONVERSIONS, *MOVES))


def _is_float(node: Node) -> bool:
    return node.attributes.get("to") in (1, 10)


def _weight_kind(node: Node, facts: Facts) -> str:
    place = WEIGHTS.get(node.operator, len(node.inputs))
    return facts.run.constants.get(node.inputs[place], "") if len(node.inputs) > place else ""
