from xml.etree import ElementTree

import pytest

from pipeline.records.record import Failure, Record
from pipeline.report.junit import junit
from tests.aliases import Make
from tests.records import gate

# What the schemas of Jenkins and GitLab have in common: attributes and children by element.
SHAPE: dict[str, tuple[set[str], set[str]]] = {
    "testsuite": ({"name", "tests", "failures", "errors", "skipped", "time", "timestamp"}, {"testcase"}),
    "testcase": ({"name", "classname", "time"}, {"failure", "error", "skipped", "system-out"}),
    "failure": ({"message", "type"}, set()),
    "error": ({"message", "type"}, set()),
    "skipped": ({"message", "type"}, set()),
    "system-out": (set(), set()),
}


def read(record: Record) -> ElementTree.Element:
    root = ElementTree.fromstring(junit(record))
    for element in root.iter():
        attributes, children = SHAPE[element.tag]
        assert set(element.attrib) <= attributes
        assert {child.tag for child in element} <= children
    assert root.attrib["tests"] == str(len(root))
    for kind, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        assert root.attrib[plural] == str(len(root.findall(f"testcase/{kind}")))
    return root


def test_the_suite_is_the_run_and_a_case_is_a_gate(record: Make) -> None:
    root = read(record(gates=[gate("pass"), gate("pass", name="size_bytes")]))
    assert root.attrib["name"] == "20260101-chain-ab12"
    assert root.attrib["timestamp"] == "2026-01-01T10:00:00"
    assert float(root.attrib["time"]) == pytest.approx(3 * 1.25)
    assert [(case.attrib["name"], case.attrib["classname"]) for case in root] == [
        ("retention", "chain"),
        ("size_bytes", "chain"),
    ]
    assert not list(root.iterfind("testcase/*"))


@pytest.mark.parametrize(("verdict", "counts_as", "becomes"), [
    ("pass", None, None),
    ("fail", None, "failure"),
    ("inconclusive", None, "skipped"),
    ("inconclusive", "inconclusive", "skipped"),
    ("inconclusive", "fail", "failure"),
    ("inconclusive", "warn", "system-out"),
    ("skipped", "pass", "system-out"),
    ("skipped", "fail", "failure"),
    ("skipped", None, "skipped"),
])  # fmt: skip
def test_a_verdict_is_what_it_counts_as(record: Make, verdict: str, counts_as: str | None, becomes: str | None) -> None:
    (case,) = read(record(gates=[gate(verdict, counts_as=counts_as, fix="Train for longer")]))
    assert [child.tag for child in case] == ([becomes] if becomes else [])
    if becomes:
        said = f"{case[0].attrib.get('message', '')} {case[0].text or ''}"
        assert "retention is 0.9" in said
        assert "Train for longer" in said


def test_a_stage_that_failed_is_an_error_by_its_place_whatever_the_gates_are(record: Make) -> None:
    failure = Failure(where="stages[1] (prune.channels)", message="it broke", exit_code=3)
    (case,) = read(record(failure=failure, gates=[], verdict=None))
    assert case.attrib["name"] == "stages[1] (prune.channels)"
    (error,) = case
    assert (error.tag, error.attrib["message"]) == ("error", "it broke")


def test_beside_the_error_each_limit_is_a_case_that_was_skipped(record: Make) -> None:
    failure = Failure(where="stages[1] (prune.channels)", message="it broke", exit_code=3)
    skipped = gate("skipped", message="retention is not judged: the run ended in stages[1] (prune.channels)")
    ended, limit = read(record(failure=failure, gates=[skipped], verdict=None))
    assert ended[0].tag == "error"
    assert (limit.attrib["name"], limit[0].tag) == ("retention", "skipped")
    assert "the run ended in stages[1]" in limit[0].attrib["message"]


def test_a_run_without_a_budget_has_one_case_that_passed(record: Make) -> None:
    (case,) = read(record(gates=[], verdict=None))
    assert case.attrib["name"] == "run"
    assert not list(case)


def test_text_that_is_no_xml_is_written_all_the_same(record: Make) -> None:
    text = 'a "quote" & <tag> ]]> \x00\x1b[31m \ufffe é 🙂'
    (case,) = read(record(config={"name": text}, gates=[gate("fail", name=text, message=text, fix=text)]))
    expected = 'a "quote" & <tag> ]]> ��[31m � é 🙂'
    assert case.attrib["name"] == case.attrib["classname"] == case[0].attrib["message"] == expected
    assert (case[0].text or "").count(expected) == 2


def test_a_record_with_nothing_in_it_gives_a_file(record: Make) -> None:
    failure = Failure(where="", message="", exit_code=4)
    (case,) = read(record(baseline=None, stages=[], gates=[], verdict=None, failure=failure))
    assert case.attrib["name"] == "run"
