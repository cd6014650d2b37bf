"""Gates on what is measured without test examples: size, counts, export parity."""

from decimal import Decimal

from pipeline.gate.budget import Most, MostBytes, MostRatio
from pipeline.gate.expected import Expected
from pipeline.gate.finding import Gate, place
from pipeline.records.parts.gates import GateRecord
from pipeline.records.record import Record

WORDS = {"size_bytes": "file", "params": "number of parameters", "macs": "number of MACs"}
KNOBS = {
    "size_bytes": "prune more, or distill into a smaller student",
    "params": "prune more, or distill into a smaller student",
    "macs": "prune more channels, or distill into a smaller student",
}


def exact(name: str, limit: MostBytes | Most, record: Record, expected: Expected | None) -> GateRecord:
    """Whether a count of the last model is at most the limit, or at most a factor of another model's count."""
    value = getattr(record.final, name)
    if value is None:  # of these, MACs alone
        reason = str(record.final and record.final.macs_reason)
        return Gate(name, float(limit.max), limit.of).skipped(reason, "Limit `params` or `latency` in its place")
    other = {"baseline": record.baseline, "expected": expected, None: None}[limit.of]
    if limit.of and other is None:
        fix = "Write the file: shrink expect RUN" if limit.of == "expected" else "Run it again"
        return Gate(name, float(limit.max), limit.of).skipped(f"there is no {limit.of} model", fix)
    most = float(limit.max)
    text = f"{name} is {value:,}, the limit {limit.max:,}"
    if other is not None:
        count = getattr(other, name)
        if count is None:
            fix = "Limit `params` or `latency` in its place"
            return Gate(name, float(limit.max), limit.of).skipped(f"the {limit.of} model's MACs are not known", fix)
        most = int(Decimal(str(limit.max)) * count)  # as floats, 0.29 of 100 is less than 29
        whose = "the baseline's" if limit.of == "baseline" else "the committed model's"
        text = f"{name} is {value:,}, the limit {most:,}, which is {limit.max:g} of {whose} {count:,}"
    return Gate(name, most, limit.of).exact(value, text, _shrink_more(name, value, most, record))


def parity(limit: MostRatio, record: Record) -> GateRecord:
    """Whether the exported file gives what the torch model gave, as the last stage that exported has found."""
    gate = Gate("parity", limit.max)
    for stage in reversed(record.stages):
        report = stage.reports.get("parity")
        difference = report.get("largest_difference") if isinstance(report, dict) else None
        if isinstance(difference, int | float):
            text = f"export parity: outputs differ by {difference:.2g} at most, the limit {limit.max:g}"
            fix = f"{place(stage)}: try another `opset`, or look for operators that depend on the batch"
            return gate.exact(float(difference), text, fix)
    return gate.skipped("no stage exported", "Add `- {use: export.onnx}` to stages")


def _shrink_more(name: str, value: int, limit: float, record: Record) -> str:
    """By which factor the last model is over, and where to turn the knob."""
    over = f"The {WORDS[name]} is {value / limit:.2f} times the limit" if limit else "Nothing keeps a limit of 0"
    steps = zip([record.baseline, *record.stages], record.stages, strict=False)
    counts = [(getattr(before, name), getattr(stage, name), stage) for before, stage in steps if before]
    shrunk = [(old / new, stage) for old, new, stage in counts if old and new and new < old]
    knob = f"{_bits(record)}, {KNOBS[name]}" if name == "size_bytes" else KNOBS[name]
    if not shrunk:
        return f"{over}, and no stage makes it smaller: {knob}"
    factor, least = min(shrunk, key=lambda pair: pair[0])
    return f"{over}; {place(least)} shrinks it least, by a factor of {factor:.2f}: turn it up, or {knob}"


def is_quantized(record: Record) -> bool:
    """Whether a stage has quantized the model, or most of its weights are of less than two bytes."""
    is_small = record.final is not None and record.final.payload_bytes < 2 * record.final.params
    return is_small or any(stage.name.startswith("quantize.") for stage in record.stages)


def _bits(record: Record) -> str:
    """What quantization has left to give."""
    if not is_quantized(record):
        return "quantize to int8"
    packed = any(stage.name == "quantize.pack" for stage in record.stages)
    return "take fewer `bits`" if packed else "take fewer `bits` and quantize.pack"
