"""Export of encoder-decoders: the files generate what torch decodes, and what does not fit is refused."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from pipeline.base.batches import Inputs, Outputs
from pipeline.base.use import Reference
from pipeline.build.build import check_stages
from pipeline.errors import ConfigError, StageError
from pipeline.fit import check_chain
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.forms.external_data import CONFIGS
from pipeline.forms.generate import GRAPHS
from pipeline.model import TorchModel
from pipeline.task import Split
from stages.export.optimum import OptimumExport
from stages.export.seq2seq import Seq2SeqExport
from stages.quantize.bisect import QuantizationBisection
from stages.quantize.dynamic import DynamicQuantization
from stages.train.supervised import SupervisedTraining
from tests import translators
from tests.aliases import Make
from tests.contexts import preview_of
from tests.translators import END, START, TARGET, Logits, copies, greedy, inputs, made, padded

pytestmark = pytest.mark.optimum
FAMILIES = ("marian", "t5", "bart")


@pytest.fixture
def asked(context: Make) -> Make:
    """A context on the task of copying."""
    task = translators.task()
    made = lambda **changes: context(task=task, **changes)  # noqa: E731
    made.reports = context.reports
    return made


@pytest.fixture(params=FAMILIES)
def exported(request: pytest.FixtureRequest, kept: Any, asked: Make, tmp_path_factory: Any) -> Any:
    name = request.param
    if name not in kept:
        model = made(name)
        file = Seq2SeqExport().run(model, asked(directory=tmp_path_factory.mktemp(name)))
        kept[name] = model, file, asked.reports["parity"]
    return kept[name]


@pytest.mark.parametrize("batch", [1, 9])
def test_the_files_generate_what_greedy_search_by_the_torch_forward_finds(exported: Any, batch: int) -> None:
    model, file, _ = exported
    given = inputs(copies(batch, seed=5))
    assert torch.equal(padded(file.predict(given)["sequences"]), greedy(model.predict, given))


def test_texts_may_be_of_any_length(exported: Any) -> None:
    model, file, _ = exported
    words = torch.randint(3, 40, (3, 15), generator=torch.Generator().manual_seed(0))
    given = {"input_ids": words, "attention_mask": torch.ones_like(words), "decoder_input_ids": words[:, :11]}
    asked = {**given, "decoder_input_ids": words[:, :TARGET]}
    assert torch.equal(padded(file.predict(given)["sequences"]), greedy(model.predict, asked))
    torch.testing.assert_close(file.logits(given), model.predict(given)["logits"], rtol=1e-4, atol=1e-4)


def test_a_missing_mask_means_that_all_is_seen(exported: Any) -> None:
    _, file, _ = exported
    bare = inputs(copies(4, seed=6))
    whole = {**bare, "attention_mask": torch.ones_like(bare["input_ids"])}
    del bare["attention_mask"]
    assert torch.equal(padded(file.predict(bare)["sequences"]), padded(file.predict(whole)["sequences"]))


def test_parity_is_reported(exported: Any) -> None:
    _, _, parity = exported
    assert 0 < parity["largest_difference"] < 1e-5
    assert (parity["equal_sequences"], parity["examples"]) == (1.0, 12)


def test_what_is_written_are_graphs_weights_and_plain_json(exported: Any) -> None:
    _, file, _ = exported
    assert {part.name for part in file.path.iterdir()} == {part.name for part in file.files()}
    config, generation = (json.loads((file.path / name).read_text()) for name in CONFIGS)
    assert "_name_or_path" not in config
    assert "transformers_version" not in config
    assert (generation["decoder_start_token_id"], generation["eos_token_id"]) == (START, END)
    for graph in file.graphs:
        proto = onnx.load(graph)
        assert not proto.metadata_props
        assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)


def test_beams_and_the_number_of_tokens_are_those_of_the_settings(asked: Make) -> None:
    model = made("bart")
    file = Seq2SeqExport(beams=3, max_tokens=4).run(model, asked())
    given = inputs(copies(5, seed=7))
    found = file.predict(given)["sequences"]
    assert found.shape[1] <= 4
    torch_model = copy.deepcopy(model.module.model)
    source = {name: given[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = torch_model.generate(**source, num_beams=3, max_new_tokens=4)[:, 1:]
    assert torch.equal(found, expected)


def test_feed_forward_layers_may_have_been_pruned(asked: Make) -> None:
    model, said = made("marian"), []
    layer = model.module.model.model.encoder.layers[0]
    layer.fc1, layer.fc2 = nn.Linear(32, 24), nn.Linear(24, 32)
    file = Seq2SeqExport().run(model, asked(warn=said.append))
    assert [text for text in said if "other shapes than config.json says" in text]
    given = inputs(copies(4, seed=8))
    torch.testing.assert_close(file.logits(given), model.predict(given)["logits"], rtol=1e-4, atol=1e-4)


def test_a_module_that_is_not_as_its_config_says_is_refused_by_name(asked: Make) -> None:
    model = made("marian")
    attention = model.module.model.model.decoder.layers[0].self_attn
    for name in ("q_proj", "k_proj", "v_proj"):
        setattr(attention, name, nn.Linear(32, 16))
    attention.out_proj, attention.head_dim = nn.Linear(16, 32), 4
    with pytest.raises(StageError, match=r"config say the sizes.*self_attn"):
        Seq2SeqExport().run(model, asked())


def test_a_module_that_does_more_than_its_model_is_refused(asked: Make) -> None:
    class Doubled(Logits):
        def forward(self, input_ids: Any, attention_mask: Any, decoder_input_ids: Any) -> Outputs:
            return {"logits": 2 * super().forward(input_ids, attention_mask, decoder_input_ids)["logits"]}

    model = made("marian")
    with pytest.raises(StageError, match="logits differ from torch's"):
        Seq2SeqExport().run(replace(model, module=Doubled(model.module.model)), asked())


def test_too_few_equal_sequences_are_refused(asked: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Seq2SeqOnnx, given: Inputs) -> Outputs:
        return {"sequences": torch.full((len(given["input_ids"]), TARGET), 7)}

    monkeypatch.setattr(Seq2SeqOnnx, "predict", wrong)
    with pytest.raises(StageError, match="of the sequences are those that torch generates"):
        Seq2SeqExport().run(made("marian"), asked())


@pytest.mark.parametrize(("stage", "builder", "message"), [
    (Seq2SeqExport, "encoders.py:bert", "no encoder-decoder; expected an encoder-decoder. Use export.optimum"),
    (OptimumExport, "translators.py:marian", "is an encoder-decoder; expected an encoder. Use export.seq2seq"),
    (Seq2SeqExport, "conftest.py:TinyNet", "no transformers model in `TinyNet`"),
])  # fmt: skip
def test_the_wrong_kind_is_refused_before_work_and_later(stage: Any, builder: str, message: str, asked: Make) -> None:
    model = TorchModel.build(Reference(use=builder, folder=Path(__file__).parents[2]), {})
    with pytest.raises(ConfigError, match=message):
        check_stages((), (("stages[0]", SupervisedTraining()), ("stages[1]", stage())), preview_of(model, 100))
    with pytest.raises(StageError, match=message):
        stage().run(model, asked())


def test_without_a_number_of_tokens_it_says_what_to_set(asked: Make) -> None:
    rows = [({"input_ids": source["input_ids"]}, target) for source, target in copies(3, 0)]
    with pytest.raises(StageError, match=r"how many tokens to generate. Set `max_tokens`"):
        Seq2SeqExport().run(made("marian"), asked(calibration=Split(rows), validation=Split(rows)))


def test_a_generation_that_has_no_pad_is_refused(asked: Make) -> None:
    model = made("marian")
    model.module.model.generation_config.pad_token_id = None
    with pytest.raises(StageError, match="expected pad_token_id"):
        Seq2SeqExport().run(model, asked())


def test_a_stage_for_one_file_does_not_take_the_three() -> None:
    chain = (("stages[0]", Seq2SeqExport()), ("stages[1]", DynamicQuantization()))
    with pytest.raises(ConfigError, match=r"an encoder-decoder as ONNX files by stages\[0\].*Use quantize.optimum"):
        check_chain(chain, TorchModel)
    looking = (*chain[:1], ("stages[1]", QuantizationBisection(method="optimum")))
    with pytest.raises(ConfigError, match=r"Use export.onnx in place of export.seq2seq, whose three graphs"):
        check_chain(looking, TorchModel)


def test_the_graphs_are_encoder_decoder_and_decoder_with_past(exported: Any) -> None:
    _, file, _ = exported
    takes = {g.stem: {node.name for node in onnx.load(g).graph.input} for g in file.graphs}
    assert tuple(takes) == GRAPHS
    assert "encoder_hidden_states" in takes["decoder_model"]
    assert not any(name.startswith("past") for name in takes["decoder_model"])
    assert {"past_key_values.0.decoder.key", "past_key_values.1.encoder.value"} <= takes["decoder_with_past_model"]
