"""Latency of encoder-decoders: every model generates as many tokens, with a cache or by its whole prefix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import StageError
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.forms.generate import open_graphs
from stages.benchmark.latency import Latency, generation
from stages.benchmark.runners.generation import cached_step, uncached_step
from stages.export.seq2seq import Seq2SeqExport
from stages.quantize.optimum import OptimumQuantization
from tests import translators
from tests.contexts import preview_of, refused
from tests.devices import Server, python_with, served
from tests.translators import END, PAD, START, TARGET, copies, inputs, made, padded

pytestmark = pytest.mark.optimum
SETTINGS = {"pad_token_id": PAD, "decoder_start_token_id": START, "eos_token_id": END}
HOW: dict[str, Any] = {"tokens": 5, "settings": SETTINGS}


class Counting:
    """A graph whose next token is the number of tokens that it sees plus two, at every place of the prefix."""

    def __init__(self, width: int | str) -> None:
        self.width, self.seen = width, list[int]()

    def get_inputs(self) -> Any:
        return [type("Node", (), {"name": "decoder_input_ids", "shape": ["batch", self.width]})]

    def get_outputs(self) -> Any:
        return [type("Node", (), {"name": name}) for name in ("hidden", "logits")]

    def run(self, names: list[str], given: dict[str, Any]) -> Any:
        assert names == ["logits"]
        ids, mask = given["decoder_input_ids"], given["decoder_attention_mask"]
        assert ids.shape == mask.shape
        assert given["input_ids"].shape == (2, 7)
        self.seen.append(ids.shape[1])
        return [np.eye(20)[3 + np.tile(np.arange(ids.shape[1]), (2, 1))]]


@pytest.mark.parametrize(("width", "seen"), [("tokens", [1, 2, 3, 4, 5]), (8, [8] * 5)])
def test_a_single_graph_is_given_its_prefix_or_all_of_its_width(width: Any, seen: list[int]) -> None:
    graph, ones = Counting(width), np.ones((2, 8), np.int64)
    given = {"input_ids": ones[:, :7], "decoder_input_ids": ones, "decoder_attention_mask": ones}
    ids = uncached_step(graph, given, HOW)()
    assert graph.seen == seen
    assert np.asarray(ids)[:, :6].tolist() == [[START, 3, 4, 5, 6, 7]] * 2


def test_a_graph_that_cannot_generate_says_so() -> None:
    graph = Counting(8)
    graph.get_inputs = lambda: []  # type: ignore[method-assign]
    with pytest.raises(SystemExit, match="no input decoder_input_ids"):
        uncached_step(graph, {}, HOW)


@pytest.fixture
def files(kept: dict[str, Seq2SeqOnnx], context: Callable[..., Any], tmp_path_factory: Any) -> list[Seq2SeqOnnx]:
    """An encoder-decoder's files in fp32 and in 8 bits."""
    if not kept:
        folder, task = tmp_path_factory.mktemp("files"), translators.task()
        ctx = context(validation=task.validation, decode=task.decode, directory=folder)
        kept["fp32"] = Seq2SeqExport().run(made("marian"), ctx)
        kept["int8"] = OptimumQuantization().run(kept["fp32"], context(directory=folder / "small"))  # type: ignore[arg-type]
    return list(kept.values())


def test_with_a_cache_it_generates_all_tokens_whatever_they_are(files: list[Seq2SeqOnnx]) -> None:
    given = inputs(copies(3, seed=1))
    fed = {name: value.numpy() for name, value in files[0].feed(given).items()}
    how = {"tokens": TARGET, "settings": files[0].settings}
    found: Any = cached_step(open_graphs(files[0].path), fed, how)()
    assert torch.equal(torch.from_numpy(found), padded(files[0].predict(given)["sequences"]))


@pytest.mark.slow
def test_its_rows_say_how_many_tokens_and_are_beside_the_baselines(files: list[Seq2SeqOnnx], context: Any) -> None:
    stage = Latency(rounds=3, iterations=20, warmup=1, batch=(1, 4))
    assert stage.run(files[1], context(baseline=files[0], deployed=lambda model: model)) is files[1]
    rows = context.reports["latency"]
    assert [(row["batch"], row["tokens"]) for row in rows] == [(1, TARGET), (4, TARGET)]
    for row in rows:
        assert row["p50_ms"] > 0
        assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"]
        assert row["execution_provider"] == "CPUExecutionProvider"


@served
def test_a_device_generates_with_numpy_and_the_runtime_alone(
    files: list[Seq2SeqOnnx], context: Any, tmp_path: Path
) -> None:
    with Server(tmp_path / "server") as server:
        python = python_with(tmp_path / "environment", "numpy", "onnxruntime")
        settings = {"runtimes": [{"use": "onnxruntime", "on": server.on(python=python)}], "rounds": 1, "iterations": 3}
        Latency.model_validate(settings).run(files[1], context(deployed=lambda model: model))
        (row,) = context.reports["latency"]
        assert (row["tokens"], row["samples"]) == (TARGET, 3)
        assert server.left() == []


def test_without_one_of_these_forms_nothing_is_generated(tiny: Any, context: Any) -> None:
    assert generation({"model": tiny()}, context(baseline=tiny())) is None


def test_torch_and_beams_are_refused_early(tiny: Any, files: list[Seq2SeqOnnx], context: Any, tmp_path: Path) -> None:
    preview = preview_of(tiny(), 10)
    refused("`runtimes` has torch", Latency(runtimes=("torch",)).check((Seq2SeqExport(),), preview))
    refused("a beam search is not timed", Latency().check((Seq2SeqExport(beams=4), OptimumQuantization()), preview))
    files[0].save(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(path.read_text().replace("{", '{"num_beams": 4,', 1))
    with pytest.raises(StageError, match="a beam search is not timed"):
        Latency().run(Seq2SeqOnnx.load(tmp_path), context(baseline=files[0]))
