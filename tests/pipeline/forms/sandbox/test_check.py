"""A file from outside is refused by its bytes, with the reason, before any library opens it."""

import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import ConfigError
from pipeline.forms.sandbox.check import FilePort, Graph, check, external
from pipeline.forms.sandbox.tensors import BITS
from pipeline.forms.sandbox.wire import DamagedError, varint
from pipeline.model import OnnxModel
from tests.graphs import graph, node
from tests.pipeline.forms.sandbox.foreign_files import classifier, relocated, simple, with_data

FLOAT = TensorProto.FLOAT
PAIR = {"x": (FLOAT, ["n", 2])}, {"y": (FLOAT, ["n", 2])}


def refused(path: Path, message: str) -> str:
    with pytest.raises(ConfigError, match=message) as caught:
        check(path)
    assert str(caught.value).startswith(f"model {path}: ")
    return str(caught.value)


def test_a_good_file_passes_and_its_ports_are_told(good: Path) -> None:
    ports = FilePort("input", "float32", ("batch", 1, 8, 8)), FilePort("output", "float32", ("batch", 4))
    assert check(good) == Graph(ports[:1], ports[1:], good.stat().st_size)


def test_remarks_of_an_exporter_are_counted(good: Path) -> None:
    before, model = check(good), onnx.load(good)
    model.graph.node[0].metadata_props.add(key="stack", value="x" * 300)
    model.graph.node[1].doc_string = "y" * 100
    good.write_bytes(model.SerializeToString())
    assert before.remarks_bytes == 0
    assert 400 <= check(good).remarks_bytes <= check(good).size_bytes - before.size_bytes


def test_ports_of_all_kinds_are_told_as_onnx_does(tmp_path: Path) -> None:
    ports = {"a": (TensorProto.INT64, [1, "n", None]), "b": (TensorProto.FLOAT16, []), "c": (TensorProto.BOOL, None)}
    model = graph([], {**ports, "e": (TensorProto.FLOAT8E4M3FN, ["n"])}, {})
    model.graph.input.insert(3, helper.make_tensor_sequence_value_info("d", FLOAT, ["n"]))
    onnx.save(model, tmp_path / "net.onnx")
    assert check(tmp_path / "net.onnx").inputs == (
        FilePort("a", "int64", (1, "n", None)),
        FilePort("b", "float16", ()),
        FilePort("c", "bool", None),
        FilePort("d", "", None),
        FilePort("e", "type 17", ("n",)),
    )


def test_weights_that_are_inputs_too_are_none(tmp_path: Path) -> None:
    ends = {"x": ["n", 2], "w": [2, 2]}, {"y": ["n", 2]}
    path = simple(tmp_path / "a.onnx", [node("MatMul", ["x", "w"], ["y"])], *ends, {"w": np.ones((2, 2))})
    assert [port.name for port in check(path).inputs] == ["x"]


def test_a_file_cut_short_is_refused_wherever_it_ends(good: Path) -> None:
    whole = good.read_bytes()
    for size in (*range(0, len(whole), 9), *range(len(whole) - 30, len(whole))):
        good.write_bytes(whole[:size])
        with pytest.raises(ConfigError, match=r"it is damaged or no ONNX file|it has 0 bytes"):
            check(good)


def test_no_bytes_make_it_fail_otherwise(tmp_path: Path) -> None:
    path = with_data(tmp_path / "net.onnx")
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3, 20))):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        with suppress(ConfigError):
            check(path)


@pytest.mark.parametrize(
    "content", [b"\x93NUMPY", b"hello, this is text", b"\x80\x02}q\x00.", bytes(1000), b"\x0b" * 9]
)
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    refused(tmp_path / "net.onnx", "it is damaged or no ONNX file: .*Export or download it again")


def test_a_file_that_is_not_there_is_told_with_the_nearest(good: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nets.onnx", "there is no such file; did you mean `net.onnx`")
    refused(tmp_path, "there is no such file")


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    path = with_data(tmp_path / "net.onnx")
    size = path.stat().st_size + (tmp_path / "net.data").stat().st_size
    assert check(path, size).size_bytes == size
    with pytest.raises(ConfigError, match=f"it has {size:,} bytes; expected at most {size - 1:,}.*Raise `memory`"):
        check(path, size - 1)


def test_external_data_beside_the_file_pass(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path = with_data(tmp_path / "net.onnx", "sub/net.data")
    check(path)
    assert external(path) == ["sub/net.data"]
    assert OnnxModel(path, {}).files() == [path, tmp_path / "sub" / "net.data"]


@pytest.mark.parametrize("location", [
    "../../etc/passwd", "/etc/passwd", "sub/../../x", "C:\\x", "C:x", "..\\x", "\\\\host\\x", "a\0b", "*/../*",
])  # fmt: skip
def test_external_data_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    path = relocated(with_data(tmp_path / "net.onnx"), location=location)
    text = refused(path, re.escape(f"the external data of `weight` lie in `{location}`"))
    assert "expected a file beside the graph, by a relative path without `..`" in text


@pytest.mark.parametrize("target", ["file", "folder"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, target: str) -> None:
    home, secret = tmp_path / "home", tmp_path / "secret"
    home.mkdir(), secret.mkdir()
    path = with_data(home / "net.onnx")
    (home / "net.data").rename(secret / "net.data")
    if target == "file":
        (home / "net.data").symlink_to(secret / "net.data")
    else:
        (home / "sub").symlink_to(secret)
        (home / "net.data").symlink_to("sub/net.data")
    refused(path, "a link out of its folder. Put a copy of the file in the link's place")


def test_a_link_inside_the_folder_passes(tmp_path: Path) -> None:
    path = with_data(tmp_path / "net.onnx")
    (tmp_path / "net.data").rename(tmp_path / "blob")
    (tmp_path / "net.data").symlink_to("blob")
    check(path)


@pytest.mark.parametrize(("entries", "message"), [
    ({"location": ""}, "the external data of `weight` lie in ``"),
    ({"location": "none.data"}, "lie in `none.data`, and there is no such file"),
    ({"location": "*/_ORT_MEM_ADDR_/*"}, "there is no such file"),
    ({"location": "."}, "there is no such file"),
    ({"offset": "999999"}, r"reach to byte 1,001,023 of net\.data, which has [\d,]+"),
    ({"offset": "-8"}, "begin or end at `-8`"),
    ({"offset": "9" * 30}, "begin or end at `9"),
    ({"length": "12"}, "has 12 bytes, and its shape promises 1,024"),
    ({"length": "", "offset": "4000"}, "reach to byte 5,024"),
])  # fmt: skip
def test_external_data_that_are_not_there_are_refused(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    refused(relocated(with_data(tmp_path / "net.onnx"), **entries), message)


def test_external_data_cut_short_are_refused(tmp_path: Path) -> None:
    path = with_data(tmp_path / "net.onnx")
    (tmp_path / "net.data").write_bytes((tmp_path / "net.data").read_bytes()[:100])
    refused(path, r"which has 100\. The file is cut short: download it again")


def outside_tensor(name: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(2, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    return tensor


def inside_if(tensor: TensorProto) -> list[onnx.NodeProto]:
    branch = graph([node("Identity", [tensor.name], ["z"])], {}, {"z": [2]}, [tensor]).graph
    test = node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True), "c"))
    return [test, node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]


@pytest.mark.parametrize("nodes", [
    lambda t: [node("Constant", [], ["y"], value=t)], lambda t: [node("Strange", [], ["y"], several=[t])], inside_if,
])  # fmt: skip
def test_external_data_of_any_tensor_are_read(
    tmp_path: Path, nodes: Callable[[TensorProto], list[onnx.NodeProto]]
) -> None:
    path = simple(tmp_path / "net.onnx", nodes(outside_tensor("t")), {}, {"y": (FLOAT, [2])})
    refused(path, r"the external data of `t` lie in `\.\./secret`")
    assert external(path) == ["../secret"]


def field(number: int, content: bytes) -> bytes:
    """A message inside another; made by hand, since libraries do not go so deep."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def nested(depth: int) -> bytes:
    """A model with graphs inside graphs."""
    graph = b""
    for _ in range(depth):
        graph = field(1, field(4, b"If") + field(5, field(6, graph)))  # node, its operator, its attribute, the graph
    return b"\x08\x0a" + field(7, graph) + field(8, b"\x10\x14")


def test_graphs_too_deep_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(nested(30))
    check(path)
    for depth in (40, 1_000, 5_000):
        path.write_bytes(nested(depth))
        refused(path, "its graphs and types lie more than 100 messages deep")


def test_types_too_deep_are_refused(tmp_path: Path) -> None:
    kind = b""
    for _ in range(1_000):
        kind = field(4, field(1, kind))  # a sequence of
    (tmp_path / "net.onnx").write_bytes(field(7, field(11, field(1, b"x") + field(2, kind))) + field(8, b""))
    refused(tmp_path / "net.onnx", "more than 100 messages deep")


def tensor(kind: int, dims: list[int], **content: Any) -> TensorProto:
    made = TensorProto(name="w", data_type=kind, dims=dims)
    for name, value in content.items():
        if name == "raw_data":
            made.raw_data = value
        else:
            getattr(made, name).extend(value)
    return made


BAD = {
    "more than there is": tensor(FLOAT, [1 << 40, 1 << 20], raw_data=bytes(8)),
    "nothing there": tensor(FLOAT, [1 << 62]),
    "less than there is": tensor(FLOAT, [1], raw_data=bytes(8)),
    "floats": tensor(FLOAT, [3], float_data=[1.0, 2.0]),
    "doubles": tensor(TensorProto.DOUBLE, [3], double_data=[1.0]),
    "integers": tensor(TensorProto.INT64, [1 << 33], int64_data=[1, 2, -3]),
    "bytes": tensor(TensorProto.INT8, [5], int32_data=[1, 2]),
    "unsigned": tensor(TensorProto.UINT64, [5], uint64_data=[1]),
    "halves of bytes": tensor(TensorProto.INT4, [5], raw_data=bytes(2)),
    "texts": tensor(TensorProto.STRING, [5], string_data=[b"a"]),
    "complex": tensor(TensorProto.COMPLEX64, [2], float_data=[1.0, 2.0]),
    "a negative size": tensor(FLOAT, [-1], raw_data=bytes(4)),
    "an unknown type": tensor(99, [1], raw_data=bytes(4)),
    "no type": tensor(0, [1], raw_data=bytes(4)),
}


@pytest.mark.parametrize("case", BAD)
def test_a_shape_that_its_data_do_not_fill_is_refused(tmp_path: Path, case: str) -> None:
    path = simple(tmp_path / "net.onnx", [], *PAIR, [BAD[case]])
    refused(path, "the tensor `w` has (.* and its shape promises|a negative size|the type)")


GOOD = {
    "raw": numpy_helper.from_array(np.ones((2, 3), np.float32), "w"),
    "a scalar": numpy_helper.from_array(np.array(3), "w"),
    "empty": numpy_helper.from_array(np.ones((0, 4), np.float32), "w"),
    "empty integers": helper.make_tensor("w", TensorProto.INT64, [0], []),
    "floats": helper.make_tensor("w", FLOAT, [2], [1.0, 2.0]),
    "half": helper.make_tensor("w", TensorProto.FLOAT16, [3], [1.0, 2.0, 3.0]),
    "brain": helper.make_tensor("w", TensorProto.BFLOAT16, [3], [1.0, 2.0, 3.0]),
    "int64": helper.make_tensor("w", TensorProto.INT64, [3], [1, -2, 2**60]),
    "int8": helper.make_tensor("w", TensorProto.INT8, [3], [1, -2, 3]),
    "uint64": helper.make_tensor("w", TensorProto.UINT64, [2], [1, 2**63]),
    "bool": helper.make_tensor("w", TensorProto.BOOL, [2], [True, False]),
    "int4": helper.make_tensor("w", TensorProto.INT4, [3], [1, 2, 3]),
    "complex": helper.make_tensor("w", TensorProto.COMPLEX64, [2], [1 + 2j, 3j]),
    "text": helper.make_tensor("w", TensorProto.STRING, [2], [b"a", b""]),
}


@pytest.mark.parametrize("case", GOOD)
def test_tensors_as_onnx_writes_them_pass(tmp_path: Path, case: str) -> None:
    check(simple(tmp_path / "net.onnx", [], *PAIR, [GOOD[case]]))


def test_the_bits_of_each_type_are_those_of_onnx() -> None:
    of_numpy = {kind: 8 * helper.tensor_dtype_to_np_dtype(kind).itemsize for kind in BITS if BITS[kind] >= 8}
    assert {kind: bits for kind, bits in BITS.items() if bits >= 8} == of_numpy
    assert set(BITS) >= {v for k, v in TensorProto.DataType.items() if k not in ("UNDEFINED", "STRING")}


@pytest.mark.parametrize(("domain", "name"), [
    ("my.ops", "Steal"), ("org.pytorch.aten", "ATen"), ("ai.onnx.contrib", "PyOp"), ("com.microsoft", "EPContext"),
])  # fmt: skip
def test_custom_operators_are_refused_by_name(tmp_path: Path, domain: str, name: str) -> None:
    nodes = [node(name, ["x"], ["y"], domain=domain)]
    path = simple(tmp_path / "a.onnx", nodes, *PAIR, opset_imports=[helper.make_opsetid(domain, 1)])
    refused(path, f"it has custom operators: {domain}::{name}; expected operators of onnx, ai.onnx.ml, com.microsoft")


def test_operators_of_onnx_runtime_pass(tmp_path: Path) -> None:
    nodes = [node("Gelu", ["x"], ["y"], domain="com.microsoft")]
    check(simple(tmp_path / "a.onnx", nodes, *PAIR, opset_imports=[helper.make_opsetid("com.microsoft", 1)]))


def function(name: str, calls: list[str]) -> onnx.FunctionProto:
    """my::name, which calls others of its domain; without any it is an Identity."""
    nodes = [node(n, ["a"], ["b"], domain="my") for n in calls] or [node("Relu", ["a"], ["b"])]
    return helper.make_function("my", name, ["a"], ["b"], nodes, [*OPSETS])


OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("my", 1)]


def calling(path: Path, functions: list[onnx.FunctionProto]) -> Path:
    return simple(path, [node("f0", ["x"], ["y"], domain="my")], *PAIR, opset_imports=OPSETS, functions=functions)


def test_functions_of_the_file_itself_pass_and_others_are_custom_operators(tmp_path: Path) -> None:
    check(calling(tmp_path / "a.onnx", [function("f0", ["f1", "f1"]), function("f1", [])]))
    refused(calling(tmp_path / "a.onnx", [function("f0", ["f1"])]), "it has custom operators: my::f1")


@pytest.mark.parametrize("calls", [{"f0": ["f0"]}, {"f0": ["f1"], "f1": ["f2"], "f2": ["f0"]}])
def test_functions_without_end_are_refused(tmp_path: Path, calls: dict[str, list[str]]) -> None:
    refused(calling(tmp_path / "a.onnx", [function(n, c) for n, c in calls.items()]), "a function calls itself")


def test_functions_that_unfold_without_measure_are_refused(tmp_path: Path) -> None:
    functions = [function(f"f{i}", [f"f{i + 1}"] * 10) for i in range(40)]
    path = calling(tmp_path / "a.onnx", [*functions, function("f40", [])])
    refused(path, r"its functions unfold to [\d,]{50,} operators; 10,000,000 are allowed")


def test_two_parts_that_a_reader_would_put_together_are_refused(good: Path) -> None:
    whole = good.read_bytes()
    good.write_bytes(whole + whole)
    refused(good, "the model at byte 0 has a part twice")


@pytest.mark.parametrize("content", [b"", b"\x80", b"\xff" * 11])
def test_a_number_that_does_not_end_is_damage(content: bytes) -> None:
    with pytest.raises(DamagedError):
        varint(content, 0, len(content))


def test_names_that_are_no_text_are_damage(good: Path) -> None:
    good.write_bytes(good.read_bytes().replace(b"Flatten", b"\xff\xfelatten"[:7]))
    refused(good, "begins a text that is none")


def test_a_large_file_is_read_in_little_time(tmp_path: Path) -> None:
    """Its weights are passed over, not read: they would be hundreds of millions of steps."""
    path = simple(tmp_path / "net.onnx", [], *PAIR, [numpy_helper.from_array(np.zeros(25_000_000, np.float32), "w")])
    assert check(path).size_bytes > 100_000_000


def test_the_classifier_is_good(good: Path) -> None:
    onnx.checker.check_model(good, full_check=True)
    assert classifier(good) == good


@pytest.mark.parametrize(("change", "message"), [
    ({"dims": [1] * 65}, r"more than 64 axes"),
    ({"data_location": onnx.TensorProto.EXTERNAL}, r"does not say clearly whether its data lie outside"),
    ({"external_data": [onnx.StringStringEntryProto(key="location", value="x")]}, r"does not say clearly"),
])  # fmt: skip
def test_a_tensor_says_where_its_data_lie_and_has_few_axes(good: Path, change: dict[str, Any], message: str) -> None:
    model = onnx.load(good)
    fields = {"name": "w", "data_type": 1, "dims": [1], "raw_data": b"1234", **change}
    model.graph.initializer.append(onnx.TensorProto(**fields))
    good.write_bytes(model.SerializeToString())
    refused(good, message)


def test_code_for_a_device_is_refused_whatever_it_is_called(tmp_path: Path) -> None:
    context = node("EPContext", ["x"], ["y"], domain="com.microsoft", overload="v")
    path = simple(tmp_path / "net.onnx", [context], {"x": ["n"]}, {"y": ["n"]})
    refused(path, r"custom operators: com\.microsoft::EPContext")
