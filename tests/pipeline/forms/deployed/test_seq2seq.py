"""The form of encoder-decoders: saved, loaded, measured, generated with numpy alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import model as models
from pipeline.errors import ConfigError
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.forms.generate import choose, greedy, open_graphs, unheeded
from pipeline.measure import cost, size
from pipeline.measure.interface import interface
from pipeline.model import TorchModel
from pipeline.run.roundtrip import save_exactly
from stages.export.seq2seq import Seq2SeqExport
from tests import translators
from tests.translators import END, PAD, SOURCE, START, TARGET, WORDS, copies, inputs, made

pytestmark = pytest.mark.optimum
Pair = tuple[TorchModel, Seq2SeqOnnx]
FIRST = 777  # stands for the first token that is generated
SETTINGS: dict[str, Any] = {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": START}


@pytest.fixture
def pair(kept: dict[str, Pair], context: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A Marian model and its files, made once."""
    if not kept:
        task, model = translators.task(), made("marian")
        ctx = context(validation=task.validation, decode=task.decode, directory=tmp_path_factory.mktemp("files"))
        kept["pair"] = model, Seq2SeqExport().run(model, ctx)
    return kept["pair"]


def test_saved_and_loaded_it_generates_the_same(pair: Pair, tmp_path: Path) -> None:
    _, file = pair
    save_exactly(file, tmp_path / "model", tmp_path)
    loaded = models.load(tmp_path / "model")
    assert isinstance(loaded, Seq2SeqOnnx)
    given = inputs(copies(6, seed=1))
    assert torch.equal(loaded.predict(given)["sequences"], file.predict(given)["sequences"])


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"form": "tensorflow", "inputs": []}')
    with pytest.raises(ConfigError, match="the tensorflow form; expected one of torch, onnx, seq2seq"):
        models.load(tmp_path)


def test_its_size_is_of_all_that_is_deployed(pair: Pair, tmp_path: Path) -> None:
    _, file = pair
    file.save(tmp_path)
    beside = {"model.json", "example.safetensors"}
    deployed = [part for part in tmp_path.iterdir() if part.name not in beside]
    assert size.size_bytes(file) == sum(part.stat().st_size for part in deployed)


def test_weights_that_graphs_share_count_once(pair: Pair) -> None:
    model, file = pair
    weights = {value.numpy().tobytes(): value.numel() for value in model.module.state_dict().values()}
    assert cost.onnx_params(file) == pytest.approx(sum(weights.values()), rel=0.005)  # equal by chance count once, too
    assert size.payload_bytes(file) == pytest.approx(4 * cost.onnx_params(file), rel=0.02)
    assert sum(layer.bytes for layer in size.layers(file.path)) == size.payload_bytes(file)


def test_macs_are_those_of_generating_all_tokens(pair: Pair) -> None:
    model, file = pair
    width, feed_forward, layers = 32, 64, 2
    encoder = layers * SOURCE * (4 * width**2 + 2 * width * feed_forward + 2 * SOURCE * width)
    seen = sum(range(1, TARGET + 1))  # keys that the steps look at
    decoder = layers * (TARGET * (6 * width**2 + 2 * width * feed_forward + 2 * SOURCE * width) + 2 * seen * width)
    keys_and_values_of_the_source = layers * 2 * SOURCE * width**2
    words = TARGET * width * WORDS
    assert cost.deployed_macs(file) == encoder + decoder + keys_and_values_of_the_source + words
    whole = cost.torch_macs(model.module, model.example)  # which computes the half of the attention that is masked, too
    assert cost.deployed_macs(file) < whole < 1.05 * cost.deployed_macs(file)


def test_its_interface_is_the_encoders_inputs_and_the_sequences(pair: Pair) -> None:
    found = interface(pair[1], translators.task(train=20))
    assert {port.name: (port.dtype, port.shape) for port in found.inputs} == {
        "input_ids": ("int64", [-1]),
        "attention_mask": ("int64", [-1]),
    }
    assert [(port.name, port.dtype, port.shape) for port in found.outputs] == [("sequences", "int64", [-1])]
    assert 0 <= found.outputs[0].low <= found.outputs[0].high < WORDS


def test_what_the_decoder_is_given_does_not_count(pair: Pair) -> None:
    given = {name: value for name, value in pair[1].example.items() if name != "decoder_input_ids"}
    whole = {**given, "decoder_input_ids": torch.ones(2, 2, dtype=torch.long)}
    assert torch.equal(pair[1].predict(given)["sequences"], pair[1].predict(whole)["sequences"])


def test_without_ids_it_says_what_is_missing(pair: Pair) -> None:
    with pytest.raises(ConfigError, match="`input_ids` is missing"):
        pair[1].predict({"decoder_input_ids": torch.ones(1, 3, dtype=torch.long)})


@pytest.mark.parametrize("settings", [
    {},
    {"forced_eos_token_id": END},
    {"forced_bos_token_id": 9},
    {"bad_words_ids": [[FIRST]]},
    {"suppress_tokens": [FIRST, 9]},
    {"begin_suppress_tokens": [FIRST]},
])  # fmt: skip
def test_numpy_alone_generates_what_optimum_does(pair: Pair, tmp_path: Path, settings: dict[str, Any]) -> None:
    pair[1].save(tmp_path)
    given = inputs(copies(9, seed=2))
    freely = pair[1].predict(given)["sequences"].numpy()
    text = json.dumps(settings).replace(str(FIRST), str(freely[0, 0]))
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | json.loads(text)))
    file = Seq2SeqOnnx.load(tmp_path)
    assert not unheeded(file.settings)
    fed = {name: value.numpy() for name, value in file.feed(given).items()}
    found = greedy(open_graphs(tmp_path), file.settings, fed, TARGET)
    np.testing.assert_array_equal(found, file.predict(given)["sequences"].numpy())
    if settings:
        assert not np.array_equal(found, freely)


def test_after_its_end_a_sequence_is_padding() -> None:
    class Graph:
        """Ends the first sequence at the second word, and the second one at the fourth; whatever it is given."""

        def __init__(self, outputs: list[str]) -> None:
            self.outputs, self.step = outputs, 0

        def get_outputs(self) -> Any:
            return [type("Node", (), {"name": name}) for name in self.outputs]

        def get_inputs(self) -> Any:
            return []

        def run(self, names: list[str], given: Any) -> list[Any]:
            self.step += 1
            logits = np.zeros((2, 1, WORDS))
            logits[0, 0, [5, END, 6, 9][self.step - 1]] = logits[1, 0, [5, 7, 8, END][self.step - 1]] = 1
            return [logits for _ in names]

    decoder = Graph(["logits"])
    graphs = [Graph(["last_hidden_state"]), decoder, decoder]
    given = {"input_ids": np.ones((2, 2), np.int64), "attention_mask": np.ones((2, 2), np.int64)}
    assert greedy(graphs, SETTINGS, given, 9).tolist() == [[5, END, PAD, PAD], [5, 7, 8, END]]
    assert decoder.step == 4


@pytest.mark.parametrize(("settings", "expected"), [
    ({"num_beams": 4}, ["num_beams"]),
    ({"num_beams": 1, "max_new_tokens": 9, "early_stopping": True, "repetition_penalty": None}, []),
    ({"repetition_penalty": 1.3, "no_repeat_ngram_size": 2}, ["repetition_penalty", "no_repeat_ngram_size"]),
    ({"bad_words_ids": [[1], [2, 3]]}, ["bad_words_ids"]),
])  # fmt: skip
def test_what_numpy_does_not_do_is_named(settings: dict[str, Any], expected: list[str]) -> None:
    assert unheeded({**SETTINGS, **settings}) == expected


def test_the_end_is_not_forbidden_by_bad_words() -> None:
    assert choose(np.array([[0.0, 1.0, 3.0, 2.0]]), {**SETTINGS, "bad_words_ids": [[END], [3]]}, 1, 9).tolist() == [END]


def test_predict_py_refuses_other_inputs(tmp_path: Path) -> None:
    script = Path(models.__file__).parent / "forms" / "generate.py"
    np.savez(tmp_path / "in.npz", input_ids=np.ones((1, 2), np.int32))
    done = subprocess.run([sys.executable, script, tmp_path / "in.npz"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "input_ids is int32 [1, 2]; expected int64" in done.stderr
