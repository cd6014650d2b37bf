"""Quantization through Optimum: every graph of an encoder-decoder, tied tables once, and single files."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from pipeline.base.files import folder_digest
from pipeline.base.hardware import cpu_flags, saturates
from pipeline.base.use import Reference
from pipeline.build.probe import example_inputs
from pipeline.errors import StageError
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.forms.external_data import load_whole
from pipeline.forms.generate import GRAPHS
from pipeline.measure import cost, size
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Split, classification
from stages.export.optimum import OptimumExport
from stages.export.seq2seq import Seq2SeqExport
from stages.quantize import optimum
from stages.quantize.optimum import OptimumQuantization, products_of_activations
from stages.quantize.static import StaticQuantization
from tests import translators
from tests.aliases import Make
from tests.contexts import preview_of, refused
from tests.translators import WORDS, copies, inputs, made, padded

pytestmark = pytest.mark.optimum
Made = tuple[Seq2SeqOnnx, Seq2SeqOnnx, dict[str, Any]]


@pytest.fixture
def quantized(kept: dict[str, Made], context: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """quantized(family): the fp32 files, the quantized ones and the report, made once."""

    def make(name: str) -> Made:
        if name not in kept:
            task, folder = translators.task(), tmp_path_factory.mktemp(name)
            ctx = context(validation=task.validation, decode=task.decode, directory=folder)
            file = Seq2SeqExport().run(made(name), ctx)
            small = OptimumQuantization(target="avx2").run(file, context(directory=folder / "quantized"))
            kept[name] = file, small, context.reports["quantization"]
        return kept[name]

    return make


families = pytest.mark.parametrize("name", ["marian", "t5", "bart"])


@families
def test_every_graph_has_its_constant_products_in_8_bits_and_attention_in_fp32(name: str, quantized: Make) -> None:
    before, after, report = quantized(name)
    assert report["target"] == "avx2"
    for graph in GRAPHS:
        counts = report["graphs"][graph]
        old, new = (load_whole(file.path / f"{graph}.onnx").graph for file in (before, after))
        attention = Counter(node.op_type for node in new.node)["MatMul"]
        layers = 2 if graph == "encoder_model" else 4  # with the attention to the source
        assert attention == counts["fp32"]["MatMul"] == 2 * layers
        assert counts["quantized"]["MatMul"] == Counter(node.op_type for node in old.node)["MatMul"] - attention
        matrices = [tensor for tensor in new.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 1]
        assert {tensor.data_type for tensor in matrices} == {TensorProto.UINT8}  # as the preset has it


@families
def test_it_decides_nearly_as_before_and_is_much_smaller(name: str, quantized: Make) -> None:
    before, after, report = quantized(name)
    given = inputs(copies(24, seed=4))
    ours, theirs = after.logits(given), before.logits(given)
    assert (ours - theirs).abs().max() < 0.05 * theirs.abs().max()
    sequences = [padded(model.predict(given)["sequences"]) for model in (after, before)]
    assert (sequences[0] == sequences[1]).double().mean() > 0.7  # it is untrained
    assert size.payload_bytes(after) < 0.33 * size.payload_bytes(before)
    assert cost.deployed_macs(after) == cost.deployed_macs(before)
    sizes = report["bytes"]
    assert sum(row["before"] for row in sizes.values()) == size.size_bytes(before)
    assert sum(row["after"] for row in sizes.values()) == size.size_bytes(after)


@families
def test_a_tied_table_is_stored_once_and_has_a_scale_for_each_token(name: str, quantized: Make) -> None:
    before, after, _ = quantized(name)
    fp32 = load_whole(before.path / "decoder_model.onnx").graph
    table = next(numpy_helper.to_array(t) for t in fp32.initializer if list(t.dims) == [WORDS, 32])
    for graph in GRAPHS:
        whole = load_whole(after.path / f"{graph}.onnx").graph
        looked_up = {node.input[0] for node in whole.node if node.op_type == "Gather"}
        (rows,) = (t for t in whole.initializer if list(t.dims) == [WORDS, 32] and t.name in looked_up)
        for codes, values in zip(numpy_helper.to_array(rows).astype(float), table, strict=True):
            fitted = np.polyval(np.polyfit(codes, values, 1), codes) if values.any() else 0 * values
            assert np.abs(fitted - values).max() <= 0.7 * np.abs(values).max() / 127  # a scale of its own
    places = {
        next(entry.value for entry in tensor.external_data if entry.key == "offset")
        for graph in GRAPHS
        for tensor in onnx.load(after.path / f"{graph}.onnx", load_external_data=False).graph.initializer
        if list(tensor.dims) == [WORDS, 32]
    }
    assert len(places) == 1


@pytest.mark.parametrize("target", ["avx512_vnni", "arm64"])
def test_presets_with_signed_weights_work_too(target: Any, quantized: Make, context: Any, tmp_path: Path) -> None:
    before, _, _ = quantized("marian")
    small = OptimumQuantization(target=target).run(before, context(directory=tmp_path / "work"))
    given = inputs(copies(24, seed=4))
    ours, theirs = small.logits(given), before.logits(given)
    if not saturates(cpu_flags()):
        assert (ours - theirs).abs().max() < 0.05 * theirs.abs().max()
    assert torch.isfinite(ours).all()
    kinds = {t.data_type for t in load_whole(small.path / "encoder_model.onnx").graph.initializer if len(t.dims) == 2}
    assert TensorProto.INT8 in kinds


def test_the_same_files_give_the_same_bytes_and_are_not_touched(quantized: Make, context: Any, tmp_path: Path) -> None:
    before, _, _ = quantized("marian")
    before.save(tmp_path / "before")
    for attempt in ("a", "b"):
        OptimumQuantization().run(before, context(directory=tmp_path / attempt)).save(tmp_path / f"{attempt}-saved")
    before.save(tmp_path / "after")
    assert folder_digest(tmp_path / "a-saved") == folder_digest(tmp_path / "b-saved")
    assert folder_digest(tmp_path / "before") == folder_digest(tmp_path / "after")


def test_where_nothing_or_all_is_quantized_it_fails(quantized: Make, context: Any) -> None:
    before, after, _ = quantized("marian")
    with pytest.raises(StageError, match=r"decoder_model.onnx: no node was quantized"):
        OptimumQuantization(operators=("Conv",)).run(before, context())
    with pytest.raises(StageError, match="quantized already"):
        OptimumQuantization().run(after, context())


def test_what_a_preset_does_not_heed_or_this_cpu_does_not_do_is_said(tiny: Make, monkeypatch: Any) -> None:
    monkeypatch.setattr("pipeline.base.hardware.cpu_flags", lambda: {"avx2", "avx_vnni"})
    preview = preview_of(tiny(), 10)
    assert list(OptimumQuantization(target="avx2", reduce_range=True).check((), preview)) == []
    (text,) = OptimumQuantization(target="avx512_vnni", reduce_range=True).check((), preview)
    assert "does nothing for avx512_vnni" in text
    monkeypatch.setattr("pipeline.base.hardware.cpu_flags", lambda: {"avx2"})
    (text,) = OptimumQuantization(target="arm64").check((), preview)
    assert "this CPU has no VNNI: its sums of 8-bit products saturate, which costs accuracy here" in text
    assert not list(OptimumQuantization(target="avx2").check((), preview))
    refused("`MatMull`; did you mean `MatMul`", OptimumQuantization(operators=("MatMull",)).check((), preview))
    refused("quantizes already", OptimumQuantization().check((StaticQuantization(),), preview))


@pytest.mark.parametrize(("machine", "flags", "expected"), [
    ("x86_64", "avx2", "avx2"),
    ("x86_64", "avx2 avx512f", "avx512"),
    ("x86_64", "avx2 avx512f avx512_vnni", "avx512_vnni"),
    ("x86_64", "avx2 avx_vnni", "avx512_vnni"),
    ("aarch64", "", "arm64"),
    ("ppc64le", "", "ppc64le"),
])  # fmt: skip
def test_the_preset_is_this_machines(machine: str, flags: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum.platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda path, **_: flags)
    assert OptimumQuantization().target == expected
    assert OptimumQuantization().model_dump()["target"] == expected  # so that it enters a result's key


@pytest.mark.parametrize("name", ["bert", "bert_alone", "distilbert", "vit"])
def test_encoders_go_that_way_too(name: str, context: Any, tmp_path: Path) -> None:
    model, ctx = encoder(name, context)
    file = OptimumExport().run(model, ctx)
    assert set(file.example) == {node.name for node in file.session.get_inputs()}
    assert list(file.predict(file.example)) == list(model.predict(model.example))
    assert context.reports["parity"]["largest_difference"] < 1e-5
    small = OptimumQuantization(target="avx2").run(file, context(directory=tmp_path / "small"))
    assert isinstance(small, OnnxModel)
    assert size.payload_bytes(small) < 0.45 * size.payload_bytes(file)
    for ours, theirs in zip(small.predict(file.example).values(), file.predict(file.example).values(), strict=True):
        assert (ours - theirs).abs().max() < 0.05
    counts = context.reports["quantization"]["quantized"]
    assert counts["MatMul"] > 0
    assert ("Gather" in counts) == (name != "vit")


def test_texts_of_any_length_go_through_an_encoder(context: Any) -> None:
    model, ctx = encoder("bert", context)
    file = OptimumExport().run(model, ctx)
    for length in (2, 30):
        ids = torch.randint(3, 50, (3, length), generator=torch.Generator().manual_seed(length))
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        torch.testing.assert_close(file.predict(given), model.predict(given), rtol=1e-5, atol=1e-5)


def encoder(name: str, context: Any) -> tuple[TorchModel, Any]:
    """An untrained encoder of tests/encoders.py, and a context with examples for it."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for i in range(12):
        ids = torch.randint(3, 50, (9,), generator=generator)
        texts = {"input_ids": ids, "attention_mask": (torch.arange(9) < 5 + i % 4).long()}
        single = torch.rand(1, 8, 8, generator=generator) if name == "vit" else ids
        rows.append(({"input": single} if name in ("vit", "bert_alone") else texts, i % 4))
    task = classification(Split(rows), Split(rows), Split(rows))
    torch.manual_seed(0)
    builder = Reference(use=f"encoders.py:{name}", folder=Path(__file__).parents[2])
    return TorchModel.build(builder, example_inputs(task.train)), context(validation=task.validation)


def test_products_of_activations_are_those_without_a_constant(quantized: Make) -> None:
    graph = load_whole(quantized("marian")[0].path / "encoder_model.onnx").graph
    assert len(products_of_activations(graph)) == 4  # two layers, queries by keys and weights by values
