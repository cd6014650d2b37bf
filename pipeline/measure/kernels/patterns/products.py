"""Products that were to be of integers and are of floats, between conversions."""

from collections.abc import Iterator, Sequence

from pipeline.measure.kernels.facts import Cpu, Facts, Graph, Node
from pipeline.measure.kernels.patterns.alarm import Alarm

CONVOLUTIONS = ("Conv", "FusedConv")
PRODUCTS = (*CONVOLUTIONS, "FusedGemm", "Gemm", "MatMul")
RECURRENT = ("GRU", "LSTM", "RNN")
ACTIVATIONS = {
    "BiasGelu", "Celu", "Clip", "Elu", "Erf", "FastGelu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish",
    "Mul", "PRelu", "QuickGelu", "Relu", "Selu", "Sigmoid", "Silu", "Softplus", "Softsign", "Swish", "Tanh",
    "ThresholdedRelu",
}  # fmt: skip


def signed_activations(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Products of signed activations that x86 has no kernel for: it makes them unsigned where that is easy alone."""
    nodes = _signed(facts, cpu)
    if nodes:
        why = (
            "its activations are int8, for which x86 has no kernel: ONNX Runtime makes them uint8 where one operator "
            "reads them and no Relu stands behind, and computes the others in floats between conversions"
        )
        yield Alarm("int8 activations", nodes, why, "Quantize with `activations: uint8`, which x86 has kernels for")


def unfused_activation(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """A function between a product and the QuantizeLinear behind it, with which no integer kernel is fused."""
    signed = _signed(facts, cpu)
    nodes = [node for node in _between(facts) if node not in signed]
    if nodes:
        why = (
            "there is an activation function between it and the QuantizeLinear behind it, which no integer kernel "
            "takes in: both are computed in floats"
        )
        remedy = (
            "Put a QuantizeLinear and DequantizeLinear between the two, as quantize.static does, or use Relu; behind a "
            "Relu the zero point is the least integer"
        )
        yield Alarm("unfused activation", nodes, why, remedy)


def wide_activations(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Activations of 16 bits, for which there are no kernels."""
    nodes = [node for node in facts.floats() if "16" in _kind_before(node, facts.run)]
    if nodes:
        why = "its activations have 16 bits, and ONNX Runtime has kernels on CPUs for 8 alone: it is computed in floats"
        yield Alarm("16-bit activations", nodes, why, "Quantize activations to uint8")


def cut_pair(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """An operator that only moves numbers, between a DequantizeLinear and the product that was to take it in."""
    run, nodes = facts.run, list[Node]()
    for node in facts.floats():
        sources = [run.past_moves(name) for name in node.inputs[:2]]
        if all(run.dequantized(name) for name, _ in sources) and any(moved for _, moved in sources):
            nodes.append(node)
    if nodes:
        why = (
            "an operator that only moves numbers, such as Pad, Tile, Expand or Reshape, lies between it and its "
            "DequantizeLinear, so the two are not made one"
        )
        yield Alarm("cut pair", nodes, why, "Put a QuantizeLinear and DequantizeLinear behind that operator, too")


def one_of_two(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Operators of which one operand is of integers and the other of floats."""
    run, nodes = facts.run, list[Node]()
    for node in run.nodes:
        if node.operator not in ("Add", "Concat", "MatMul", "Mul") or node.is_integer:
            continue
        operands = [name for name in node.inputs if not run.is_constant(name)]
        dequantized = [name for name in operands if run.dequantized(name)]
        readers = run.readers(node)
        is_quantized = bool(readers) and all(reader.operator == "QuantizeLinear" for reader in readers)
        if is_quantized and len(operands) > 1 and 0 < len(dequantized) < len(operands):
            nodes.append(node)
    if nodes:
        why = "one of its inputs is quantized and another is not, so it is computed in floats between conversions"
        yield Alarm("one input of two", nodes, why, "Quantize all of its inputs, or none: exclude it and what feeds it")


def open_end(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Convolutions with quantized inputs and without a QuantizeLinear behind them."""
    run = facts.run
    nodes = [
        node
        for node in quantized(facts, CONVOLUTIONS)
        if not any(reader.operator == "QuantizeLinear" for reader in _through(run.readers(node), run))
    ]
    if nodes:
        why = "its inputs are quantized and its output is not: integer kernels of convolutions give integers alone"
        yield Alarm("unquantized output", nodes, why, "Put a QuantizeLinear and DequantizeLinear behind it")


def weights_at_run_time(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Weights of integers that are made floats at each run, for a product of floats."""
    run, nodes = facts.run, list[Node]()
    for node in facts.floats():
        weights = [name for name in node.inputs if _is_weight(name, run)]
        if node.operator not in RECURRENT and weights and not _kind_before(node, run):
            nodes.append(node)
    if nodes:
        why = "its weight is stored in integers and is made floats again at each run, for nothing else is quantized"
        remedy = (
            "Quantize its input, too (quantize.static; of a MatMul or Gemm quantize.dynamic), or store the weight so "
            "that it is decoded once, at loading (quantize.pack)"
        )
        yield Alarm("weights dequantized at run time", nodes, why, remedy)


def recurrent(facts: Facts, cpu: Cpu) -> Iterator[Alarm]:
    """Recurrent layers whose weights of integers are made floats at each run."""
    nodes = [n for n in facts.floats() if n.operator in RECURRENT and any(_is_weight(w, facts.run) for w in n.inputs)]
    if nodes:
        why = "it has no integer kernel that takes a DequantizeLinear in: its weights are made floats again at each run"
        remedy = "An LSTM: quantize it dynamically (DynamicQuantizeLSTM); a GRU or RNN: leave its weights in floats"
        yield Alarm("recurrent layer", nodes, why, remedy)


def _signed(facts: Facts, cpu: Cpu) -> list[Node]:
    """Quantized products of floats with int8 before or behind them, and no function but Relu in between."""
    others = [node for node in _between(facts) if not _is_relu(node, facts.run)]
    return [
        node
        for node in quantized(facts, PRODUCTS)
        if cpu.is_x86 and node not in others and "int8" in {_kind_before(node, facts.run), *_behind(node, facts)}
    ]


def _is_relu(node: Node, run: Graph) -> bool:
    """Whether the activation function behind a product is Relu or Clip."""
    return {node.attributes.get("activation"), *(reader.operator for reader in run.readers(node))} <= {
        None, "Clip", "QuantizeLinear", "Relu",
    }  # fmt: skip


def _between(facts: Facts) -> list[Node]:
    """Quantized products of floats with an activation function between them and the QuantizeLinear."""
    run, nodes = facts.run, list[Node]()
    for node in quantized(facts, PRODUCTS):
        readers = run.readers(node)
        fused = "activation" in node.attributes and any(r.operator == "QuantizeLinear" for r in readers)
        activations = [reader for reader in readers if reader.operator in ACTIVATIONS]
        behind = _through(activations, run)
        if fused or (activations and any(reader.operator == "QuantizeLinear" for reader in behind)):
            nodes.append(node)
    return nodes


def _through(nodes: list[Node], run: Graph, steps: int = 4) -> list[Node]:
    """Nodes and those behind them, through as many activation functions as one is made of."""
    reached = list(nodes)
    for _ in range(steps):
        nodes = [reader for node in nodes if node.operator in ACTIVATIONS for reader in run.readers(node)]
        reached += nodes
    return reached


def _behind(node: Node, facts: Facts) -> set[str]:
    """The dtypes that a product's output is quantized to in the file, past activation functions."""
    file = facts.file
    behind = _through([n for n in file.nodes if set(node.outputs) & set(n.inputs)], file)
    return {file.kind(reader) for reader in behind if reader.operator == "QuantizeLinear"}


def quantized(facts: Facts, operators: Sequence[str]) -> list[Node]:
    """Products of floats whose input and weight were quantized to 8 bits."""
    run = facts.run
    return [
        node
        for node in facts.floats()
        if node.operator in operators
        and "8" in _kind_before(node, run)
        and any(_is_weight(name, run) for name in node.inputs[1:2])
    ]


def _kind_before(node: Node, run: Graph) -> str:
    """The dtype that a node's input was dequantized from; "" where it is of floats all along."""
    maker = run.dequantized(run.past_moves(node.inputs[0])[0])
    return "" if maker is None or run.is_constant(maker.inputs[0]) else run.kind(maker)


def _is_weight(name: str, run: Graph) -> bool:
    """Whether a value is a constant of integers, made floats at each run."""
    maker = run.dequantized(run.past_moves(name)[0]) if name else None
    return maker is not None and run.is_constant(maker.inputs[0])
