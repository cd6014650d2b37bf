"""junit.xml: a case a gate, for the CI systems that show tests."""

import re
from io import BytesIO

from junitparser import Error, Failure, Skipped, TestCase, TestSuite

from pipeline.records.parts.gates import GateRecord
from pipeline.records.record import Record

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(record: Record) -> bytes:
    """The document: one suite for the run, its gates as cases, and an error where the run ended early.

    A gate that failed is a failure. One that is inconclusive or was skipped is skipped, unless the budget says what it
    counts as: a failure, or passed with the message in the output.
    """
    suite = TestSuite(_clean(record.run))
    suite.timestamp = record.started[:19]  # the schemas want it without a zone
    suite.add_testcases(_cases(record))  # the sums are made here; the time is the run's and not the cases'
    suite.time = seconds(record)
    content = BytesIO()
    suite.write(content, pretty=True)
    return content.getvalue()


def seconds(record: Record) -> float:
    """What the results of a run took to make, also those that were found in the store."""
    return round(sum(model.seconds for _, model in record.models), 3)


def _cases(record: Record) -> list[TestCase]:
    name = str(record.config.get("name", record.run))
    gates = [_of_gate(name, gate) for gate in record.gates]
    if record.failure:
        return [_case(name, record.failure.where or "run", Error(_clean(record.failure.message), "failure")), *gates]
    return gates or [_case(name, "run")]


def _of_gate(name: str, gate: GateRecord) -> TestCase:
    text = _clean(f"{gate.verdict}: {gate.message}")
    if gate.verdict == "fail" or gate.counts_as == "fail":
        failure = Failure(_clean(gate.message), gate.verdict)
        failure.text = f"{text}\n{_clean(gate.fix)}".strip()
        return _case(name, gate.name, failure)
    if gate.verdict == "pass":
        return _case(name, gate.name)
    if gate.counts_as in ("pass", "warn"):
        case = _case(name, gate.name)
        case.system_out = f"{text}\n{_clean(gate.fix)}".strip()
        return case
    return _case(name, gate.name, Skipped(_clean(f"{gate.message} {gate.fix}".strip()), gate.verdict))


def _case(classname: str, name: str, result: Error | Failure | Skipped | None = None) -> TestCase:
    case = TestCase(_clean(name), _clean(classname), 0.0)
    if result is not None:
        case.result = [result]
    return case


def _clean(text: str) -> str:
    """Without the characters that no XML may hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
