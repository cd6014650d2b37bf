"""What is said of a process that failed on a device."""

import pytest

from pipeline.errors import StageError
from stages.benchmark.hosts.failures import judged
from stages.benchmark.hosts.ssh import Ssh


@pytest.mark.parametrize(("module", "requirement", "installed"), [
    ("ncnn", "ncnn==1.0", "ncnn==1.0"),
    ("MNN.expr", "mnn==3.6.1", "mnn==3.6.1"),
    ("ai_edge_litert", "ai-edge-litert==2.3.0", "ai-edge-litert==2.3.0"),
    ("torch", "executorch==1.5.1", "torch"),
    ("numpy", "onnxruntime", "numpy"),
])  # fmt: skip
def test_the_package_of_a_missing_module_is_named(module: str, requirement: str, installed: str) -> None:
    answer = {"code": 1, "text": f"  import x\nModuleNotFoundError: No module named '{module}'\n"}
    with pytest.raises(StageError) as raised:
        judged(answer, Ssh(ssh="pi@board"), "the process", requirement)
    end = f"There: python3 -m pip install {installed}."
    assert str(raised.value) == f"ssh: pi@board: {module} is not installed for python3 there. {end}"
