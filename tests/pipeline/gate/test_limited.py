"""A limit on what no stage measures is refused before any work, with what is measured."""

from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.gate.budget import Budget
from pipeline.gate.choice.choosing import Choosing
from pipeline.gate.limited import check_choosing, check_rows
from pipeline.stage import Stage
from stages.benchmark.latency import Latency
from stages.export.onnx import OnnxExport
from stages.quantize.static import StaticQuantization


class Clock(Latency):
    """A stage of the user's, which does not say where it measures."""

    def timed_in(self) -> list[dict[str, Any]]:
        return []


BOTH: Any = Latency(runtimes=["onnxruntime", {"use": "openvino", "precision": "native"}], threads=(1, 2), batch=(1, 8))


def checked(limits: dict[str, Any], *stages: Stage) -> list[str]:
    chain: Sequence[tuple[str, Stage]] = [
        (f"stages[{i}] ({type(one).__module__.removeprefix('stages.')})", one) for i, one in enumerate(stages)
    ]
    return check_rows(Budget.model_validate(limits), chain)


@pytest.mark.parametrize("where", [
    {}, {"runtime": "onnxruntime"}, {"runtime": "openvino"}, {"runtime": "openvino native", "threads": 2, "batch": 8},
])  # fmt: skip
def test_a_limit_on_what_is_measured_is_taken(where: dict[str, Any]) -> None:
    limits = {
        "latency": {"max": "5 ms", **where},
        "memory": {"max": "1 MB", **where},
        "startup": {"max": "1 s", **where},
    }
    assert checked(limits, BOTH) == []
    assert BOTH.timed_in()[-1] == {"runtime": "openvino", "threads": 2, "batch": 8, "settings": {"precision": "native"}}


@pytest.mark.parametrize(("limits", "message"), [
    ({"memory": {"max": "1 MB", "runtime": "onnx_runtime"}},
     r"budget: memory is limited in onnx_runtime, and no stage measures it there\. Did you mean `onnxruntime`"),
    ({"startup": {"max": "1 s", "runtime": "openvino f32"}}, "Did you mean `openvino` or `openvino native`, or"),
    ({"latency": {"max": "5 ms", "runtime": "tvm"}}, "There are `onnxruntime`, .*or add it to `runtimes`"),
    ({"latency": {"max": "5 ms", "batch": 4}}, r"limited in batch 4, .*`threads: \[1, 2\]` and `batch: \[1, 8\]`"),
    ({"latency": [{"max": 0.9}, {"max": "5 ms", "threads": 4}]}, "limited in threads 4"),
])  # fmt: skip
def test_a_limit_on_another_runtime_is_refused_with_the_nearest(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(limits, BOTH)


def test_without_a_benchmark_every_kind_is_refused() -> None:
    for limits in ({"latency": {"max": 0.5}}, {"memory": {"max": "1 MB"}}, {"startup": {"max": "1 s"}}):
        with pytest.raises(ConfigError, match=f"budget: {next(iter(limits))} is limited and no stage measures it"):
            checked(limits, OnnxExport())
    assert checked({"size": {"max": "1 MB"}}, OnnxExport()) == []


def test_a_stage_that_does_not_say_where_it_measures_may_measure_anywhere() -> None:
    assert checked({"memory": {"max": "1 MB", "runtime": "tvm"}}, Clock()) == []


def test_a_model_that_is_changed_afterwards_is_warned_of() -> None:
    early: Any = Latency(runtimes=["torch"])
    chain = early, OnnxExport(), BOTH
    assert checked({"memory": {"max": "1 MB", "runtime": "torch"}, "latency": {"max": 1}}, *chain) == []
    (warning,) = checked({"memory": {"max": "1 MB", "runtime": "torch"}}, *chain, StaticQuantization())
    assert warning == ("budget: memory is measured before stages[3] (quantize.static), whose model may be another")


def test_a_choice_needs_a_stage_that_measures_where_it_says() -> None:
    chain = [("stages[0] (benchmark.latency)", BOTH)]
    check_choosing(Choosing(runtime="openvino"), chain)
    check_choosing(None, [])
    with pytest.raises(ConfigError, match=r"choose: a runtime is to be chosen and no stage measures one\. Add"):
        check_choosing(Choosing(), [("stages[0] (export.onnx)", OnnxExport())])
    with pytest.raises(ConfigError, match=r"choose: the choice is limited in onnxruntme, .*Did you mean `onnxruntime`"):
        check_choosing(Choosing(runtime="onnxruntme"), chain)
