"""A chain that starts with an ONNX file: its graph must take what the task gives, and no stage may need torch."""

import re
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto
from torch.utils.data import TensorDataset

from pipeline.base.batches import Inputs
from pipeline.build.build import Built, build
from pipeline.build.onnx_input import bind
from pipeline.build.source import load_config
from pipeline.errors import ConfigError, ForeignError
from pipeline.forms.sandbox.check import FilePort, Graph, check
from pipeline.model import OnnxModel
from pipeline.task import Split, Task, classification
from tests.aliases import Make
from tests.graphs import node
from tests.pipeline.forms.sandbox.foreign_files import classifier, simple, with_data
from tests.users import chain_of, stage_file

CHAIN = chain_of("quantize.static", model="onnx: net.onnx")
IMAGES = torch.rand(2, 1, 8, 8)


def made(path: Path, **how: Any) -> Built:
    return build(*load_config(path), **how)


def refused(path: Path, message: str) -> str:
    with pytest.raises(ConfigError, match=message) as caught:
        made(path)
    return str(caught.value)


def test_the_model_is_the_file_and_nothing_is_suspicious(folder: Make) -> None:
    built = made(folder(CHAIN))
    assert isinstance(built.model, OnnxModel)
    assert built.model.outside
    assert "child" not in built.model.__dict__  # it has ended; there may be many of these
    assert not [text for text in built.warnings if "VNNI" not in text]
    (note,) = built.loading
    assert str(note) == "model (net.onnx): it comes from outside and is run in a process of its own"


@pytest.mark.parametrize("stage", [
    "{use: export.onnx}",
    "{use: train.supervised, epochs: 1}",
    "{use: prune.channels, macs: 0.5}",
    "{use: distill.logits, student: {use: models.py:TinyNet}}",
])  # fmt: skip
@pytest.mark.parametrize("place", ["first", "later", "baseline"])
def test_a_stage_that_needs_torch_is_refused_before_data_are_read(folder: Make, stage: str, place: str) -> None:
    chain = {
        "first": CHAIN.replace("{use: quantize.static}", stage),
        "later": f"{CHAIN}  - {stage}\n",
        "baseline": CHAIN.replace("stages:", f"baseline: [{stage}]\nstages:"),
    }[place]
    path = folder(chain)
    (path.parent / "data.py").write_text("raise SystemExit\n")
    at = {"first": r"stages\[0\]", "later": r"stages\[1\]", "baseline": r"baseline\[0\]"}[place]
    text = refused(path, rf"{at} \([a-z.]+\): it needs a torch model, and the model comes as an ONNX file, net\.onnx")
    assert "Leave it out, or give the module: `model: {use: models.py:net, weights: net.safetensors}`" in text


def test_a_file_with_many_remarks_is_warned_of(folder: Make) -> None:
    path = folder(CHAIN)
    model = onnx.load(path.parent / "net.onnx")
    model.graph.node[0].metadata_props.add(key="stack", value="x" * 300)
    onnx.save(model, path.parent / "net.onnx")
    assert any(re.search(r"3\d\d of its [\d,]+ bytes are remarks", text) for text in made(path).warnings)


def test_a_stage_of_a_users_that_takes_an_onnx_file_fits(folder: Make) -> None:
    path = folder(CHAIN.replace("quantize.static", "mine.py"))
    (path.parent / "mine.py").write_text(stage_file(form="OnnxModel"))
    assert [place for place, _ in made(path).stages] == ["stages[0] (mine.py)"]


@pytest.mark.parametrize(("source", "message"), [
    ("{onnx: none.onnx}", r"model none\.onnx|none\.onnx: there is no such file; did you mean `net\.onnx`"),
    ("{use: net.onnx}", r"chain\.yaml:2: `model` does not fit; expected `onnx: net\.onnx` for an ONNX file"),
    ("{onnx: net.onnx, use: models.py:TinyNet}", "nothing but `sha256` beside `onnx`, and there is `use`"),
    ("{onnx: net.onnx, weights: net.pt}", "nothing but `sha256` beside `onnx`, and there is `weights`"),
    ("{onnx: net.onnx, width: 3}", "nothing but `sha256` beside `onnx`, and there is `width`"),
    ("{onnx: {file: net.onnx, memry: 3 GB}}", "there is no key `memry`; did you mean `memory`"),
    ("{onnx: {file: net.onnx, seconds: 0}}", "`seconds` is 0; expected greater than 0"),
    ("{use: models.py:TinyNet, sha256: abc}", "`sha256` is 'abc'; expected 64 hexadecimal digits$"),
    (f"{{onnx: net.onnx, sha256: {'a' * 63}g}}", "ag'; expected 64 hexadecimal digits$"),
    (f"{{onnx: net.onnx, sha256: {'1' * 64}}}", "1; expected 64 hexadecimal digits, in quotes$"),
    (f"{{use: models.py:TinyNet, sha256: {'a' * 64}}}", "expected `weights` or `onnx` beside `sha256`"),
    (f"{{onnx: net.onnx, sha256: {'a' * 64}}}", rf"model \S+/net\.onnx: its sha256 is \w+; expected {'a' * 64}"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused(folder: Make, source: str, message: str) -> None:
    refused(folder(CHAIN.replace("{onnx: net.onnx}", source)), message)


def test_a_digest_is_compared_before_the_file_is_read(folder: Make) -> None:
    path = folder(CHAIN.replace("net.onnx", f"net.onnx, sha256: {'a' * 64}"))
    (path.parent / "net.onnx").write_bytes(b"no ONNX file")
    refused(path, "its sha256 is")


@pytest.mark.parametrize("content", [b"no ONNX file", b""])
def test_a_file_is_named_once(folder: Make, content: bytes) -> None:
    path = folder(CHAIN)
    (path.parent / "net.onnx").write_bytes(content)
    assert refused(path, r"chain\.yaml:2: model \S+/net\.onnx: it ").count("net.onnx") == 1
    (path.parent / "net.onnx").unlink()
    assert refused(path, "there is no such file").count("net.onnx") == 1


def test_limits_of_the_config_reach_the_child(folder: Make) -> None:
    model = made(folder(CHAIN.replace("net.onnx}", "{file: net.onnx, memory: 3 GiB, seconds: 44}}"))).model
    assert isinstance(model, OnnxModel)
    assert model.outside.limits == (3 * 2**30, 44)


def test_too_little_memory_is_exit_code_6(folder: Make) -> None:
    path = folder(CHAIN.replace("net.onnx}", "{file: net.onnx, memory: 100 MB}}"))
    with pytest.raises(ForeignError, match=r"net\.onnx: the process that runs it .* raise `memory`") as caught:
        made(path)
    assert (caught.value.exit_code, str(caught.value).count("net.onnx")) == (6, 1)


@pytest.mark.parametrize(("how", "message"), [
    ({"shape": ["batch", 3, 8, 8]}, r"takes `input` float32 \(batch, 3, 8, 8\), and the task gives `input` float32"),
    ({"shape": ["batch", 64]}, r"takes `input` float32 \(batch, 64\), and .* \(batch, 1, 8, 8\)"),
    ({"kind": TensorProto.FLOAT16}, r"takes `input` float16 .* the task gives `input` float32"),
    ({"kind": TensorProto.DOUBLE}, "takes `input` float64"),
])  # fmt: skip
def test_a_graph_that_takes_something_else_is_refused(folder: Make, how: dict[str, Any], message: str) -> None:
    assert re.search(r"chain\.yaml:2: model \S+/net\.onnx: ", refused(folder(CHAIN, **how), message))


def test_one_input_and_one_output_are_bound_by_position(folder: Make) -> None:
    built = made(folder(CHAIN, names=("pixels", "scores")))
    model = built.model
    assert isinstance(model, OnnxModel)
    assert (dict(model.outside.inputs), dict(model.outside.outputs)) == ({"input": "pixels"}, {"scores": "output"})
    notes = " ".join(built.notes)
    assert "the task's `input` is `pixels` in the file" in notes
    assert "the file's `scores` is the task's `output`" in notes
    assert not [text for text in built.warnings if "VNNI" not in text]  # of two names it has one output


def test_a_file_with_weights_beside_it_is_opened(folder: Make) -> None:
    assert isinstance(made(folder(CHAIN, make=with_data)).model, OnnxModel)


def port(name: str, dtype: str = "float32", shape: Any = ("n", 1, 8, 8)) -> FilePort:
    return FilePort(name, dtype, shape)


def of(**rest: Any) -> Task:
    split = Split(TensorDataset(IMAGES, torch.zeros(2).long()))
    return classification(split, split, split, **rest)


TEXT: Inputs = {"ids": torch.zeros(2, 7, dtype=torch.int64), "mask": torch.ones(2, 7, dtype=torch.int32)}
OUT = (FilePort("logits", "float32", None),)


def bound(inputs: tuple[FilePort, ...], example: Inputs, outputs: tuple[FilePort, ...] = OUT, **rest: Any) -> Any:
    return bind(Graph(inputs, outputs, 1), of(**rest), example)


def test_integers_and_several_inputs_are_found_by_name() -> None:
    ids, mask = port("ids", "int64", ("n", "t")), port("mask", "int32", ("n", 7))
    assert bound((mask, ids), TEXT) == ({}, {"logits": "output"})
    assert bound((ids,), TEXT, output="logits") == ({}, {})


@pytest.mark.parametrize("inputs", [
    (port("ids", "int32", ("n", "t")),),
    (port("ids", "int64", ("n", 8)),),
    (port("ids", "int64", ("n",)),),
    (port("ids", "int64", ("n", "t")), port("types", "int64", ("n", "t"))),
    (port("ids", "", None),),
    (),
])  # fmt: skip
def test_each_difference_is_one_error_that_lists_both(inputs: tuple[FilePort, ...]) -> None:
    with pytest.raises(ConfigError, match=r"the file takes .*, and the task gives `ids` int64 \(batch, 7\), `mask`"):
        bound(inputs, TEXT)


def test_a_length_that_varies_must_not_be_fixed() -> None:
    given = (port("ids", "int64", ("n", 7)),)
    assert bound(given, TEXT)[0] == {}
    message = r"takes `ids` int64 \(n, 7\), and the task gives `ids` int64 \(batch, tokens\)"
    with pytest.raises(ConfigError, match=message):
        bound(given, TEXT, axes={"ids": {1: "tokens"}})


def test_a_bare_tensor_alone_is_bound_by_position() -> None:
    assert bound((port("x"),), {"input": IMAGES})[0] == {"input": "x"}
    with pytest.raises(ConfigError, match=r"the file takes `x` .* the task gives `pixels`"):
        bound((port("x"),), {"pixels": IMAGES})


def test_half_precision_of_a_task_and_a_shape_that_the_file_does_not_tell_fit() -> None:
    assert bound((port("input", "float16"),), {"input": IMAGES.half()})[0] == {}
    assert bound((port("input", "float32", None),), {"input": IMAGES})[0] == {}


def test_outputs_are_bound_to_what_the_task_scores() -> None:
    given, two = (port("input"),), (*OUT, FilePort("hidden", "float32", None))
    assert bound(given, {"input": IMAGES}, OUT, output="scores")[1] == {"logits": "scores"}
    assert bound(given, {"input": IMAGES}, OUT, output="logits")[1] == {}
    assert bound(given, {"input": IMAGES}, two, output="logits")[1] == {}
    message = "it gives the outputs logits, hidden; expected `scores`, the task's `output`"
    with pytest.raises(ConfigError, match=message):
        bound(given, {"input": IMAGES}, two, output="scores")


@pytest.mark.parametrize("outputs", [(), (FilePort("a", "string", None),), (*OUT, FilePort("b", "", None))])
def test_outputs_that_are_no_numbers_are_refused(outputs: tuple[FilePort, ...]) -> None:
    with pytest.raises(ConfigError, match=r"expected tensors of numbers\. Export it without"):
        bound((port("input"),), {"input": IMAGES}, outputs)


def test_a_graph_that_onnx_runtime_refuses_is_a_config_error(folder: Make) -> None:
    def broken(path: Path) -> Path:
        ends = {"input": ["n", 1, 8, 8]}, {"output": ["n", 1, 8, 8]}
        return simple(path, [node("NoSuch", ["input"], ["output"])], *ends)

    refused(folder(CHAIN, make=broken), r"model \S+/net\.onnx: RuntimeError: .*NoSuch")


HALF = """
from .data import quadrants
import torch
from torch.utils.data import TensorDataset
from pipeline.task import Split, classification

def halved(count, seed):
    images, labels = quadrants(count, seed).tensors
    return Split(TensorDataset(images.half(), labels))

def task():
    return classification(halved(128, 0), halved(32, 1), halved(64, 2))
"""


def test_half_precision_is_run(folder: Make) -> None:
    path = folder(CHAIN.replace("data.py", "half.py"), kind=TensorProto.FLOAT16)
    (path.parent / "half.py").write_text(HALF)
    assert made(path).model.predict({"input": IMAGES.half()})["output"].dtype is torch.float16


def test_what_the_check_reads_is_what_onnx_reads(tmp_path: Path) -> None:
    graph = check(classifier(tmp_path / "net.onnx", ("a", "b")))
    assert [port.name for port in (*graph.inputs, *graph.outputs)] == ["a", "b"]
