"""Models from a folder or a configuration: weights are read once, and a rebuild needs neither them nor a network."""

import logging
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM

from pipeline.build.build import build
from pipeline.build.config import PipelineConfig
from pipeline.build.probe import example_inputs
from pipeline.errors import ConfigError
from pipeline.model import TorchModel
from pipeline.task import Task
from pipeline.tasks.huggingface import timm
from pipeline.tasks.huggingface.huggingface import model, task
from pipeline.tasks.huggingface.models import network
from pipeline.tasks.huggingface.pretrained import Start
from pipeline.tasks.huggingface.rows import DatasetTask
from stages.kd.student import Student
from tests import sets

SIZE = 60


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> DatasetTask:
    parts = sets.split(sets.texts(60), train=40, validation=10, test=10)
    return task(data=sets.write(tmp_path_factory.mktemp("texts"), **parts), vocabulary=SIZE)


def started(task: Task, **arguments: Any) -> Start:
    torch.manual_seed(0)
    return model(task, example_inputs(task.train), **arguments)


@pytest.fixture
def saved(texts: DatasetTask, tmp_path: Path) -> Path:
    """A folder with a trained classifier, as `save_pretrained` writes it."""
    module = started(texts, config=sets.BERT).model.module
    module.save_pretrained(tmp_path / "classifier")  # type: ignore[operator]
    return tmp_path / "classifier"


def test_sizes_that_follow_from_the_task_are_filled_in_and_what_is_given_stays(texts: DatasetTask) -> None:
    config = started(texts, config=sets.BERT, hidden_dropout_prob=0.2).model.module.config
    assert config.vocab_size == len(texts.tokenizer) == SIZE  # type: ignore[union-attr]
    assert config.id2label == {0: "no", 1: "yes"}  # type: ignore[union-attr]
    assert config.hidden_size == 16  # type: ignore[union-attr]
    assert config.hidden_dropout_prob == 0.2  # type: ignore[union-attr]
    assert config._attn_implementation == "eager"  # type: ignore[union-attr]
    more = started(texts, config={**sets.BERT, "vocab_size": 99}).model.module.config
    assert more.vocab_size == 99  # type: ignore[union-attr]


def test_a_folders_weights_are_loaded_and_a_rebuild_needs_none(texts: DatasetTask, saved: Path, tmp_path: Path) -> None:
    found = started(texts, name=str(saved))
    assert found.trained
    assert found.notes == ()
    direct = AutoModelForSequenceClassification.from_pretrained(saved, attn_implementation="eager").eval()
    batch = next(iter(texts.test.loader(5))).inputs
    with torch.no_grad():
        assert torch.equal(found.model.predict(batch)["logits"], direct(**batch).logits)
    found.model.save(tmp_path / "model")
    shutil.rmtree(saved)
    loaded = TorchModel.load(tmp_path / "model")
    assert torch.equal(loaded.predict(batch)["logits"], found.model.predict(batch)["logits"])
    assert "classifier" not in str(loaded.builder.arguments).replace("classifier_dropout", "")


def test_a_new_head_is_said_in_one_note(texts: DatasetTask, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = BertConfig(**{k: v for k, v in sets.BERT.items() if k != "model_type"}, vocab_size=SIZE)
    BertForMaskedLM(config).save_pretrained(tmp_path / "masked")
    with caplog.at_level(logging.WARNING, logger="transformers"):
        found = started(texts, name=str(tmp_path / "masked"))
    assert not found.trained
    (note,) = found.notes
    assert "have no fitting bert.pooler.dense.bias, bert.pooler.dense.weight, classifier.bias, classifier" in note
    assert not caplog.records


def test_a_head_for_other_classes_begins_anew_and_another_order_is_refused(texts: DatasetTask, saved: Path) -> None:
    three = started(replace(texts, labels=("a", "b", "c")), name=str(saved))
    assert "classifier.bias, classifier.weight" in three.notes[0]
    assert not three.trained
    with pytest.raises(ConfigError, match=r"its classes are no, yes, in another order.*expected yes, no"):
        started(replace(texts, labels=("yes", "no")), name=str(saved))


def test_only_safetensors_are_read(texts: DatasetTask, saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    assert not started(texts, name=str(saved)).trained  # a configuration alone: nothing to load
    with pytest.raises(ConfigError, match=r"has no safetensors weights, and others may hold code"):
        started(texts, name=str(saved), pretrained=True)
    torch.save({}, saved / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"has no safetensors weights, and others may hold code.*save_pretrained"):
        started(texts, name=str(saved))


def test_weights_of_another_size_or_another_model_are_refused(texts: DatasetTask, saved: Path) -> None:
    with pytest.raises(ConfigError, match=r"the weights have another shape in bert\..*pretrained: false"):
        started(texts, name=str(saved), intermediate_size=64)
    assert not started(texts, name=str(saved), intermediate_size=64, pretrained=False).trained
    save_file({"other": torch.zeros(2)}, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"\d+ of \d+ weights are missing"):
        started(texts, name=str(saved))


@pytest.mark.parametrize(("arguments", "message"), [
    ({}, r"there is neither `name` nor `config`; expected one"),
    ({"name": "a", "config": {}}, r"there are both `name` and `config`; expected one"),
    ({"config": {"model_type": "brt"}}, r"`model_type` is brt; did you mean .*`bert`"),
    ({"config": {**sets.BERT, "hiden_size": 8}}, r"bert has no setting `hiden_size`; did you mean `hidden_size`"),
    ({"config": sets.BERT, "layers": 8}, r"bert has no setting `layers`"),
    ({"config": sets.BERT, "labels": 5}, r"`labels` is 5; expected 2, as the task has"),
    ({"config": {**sets.BERT, "vocab_size": 20}}, r"the tokenizer has 60 tokens and the model 20"),
    ({"name": "/nowhere"}, r"/nowhere: it cannot be read"),
])  # fmt: skip
def test_models_that_cannot_be_are_refused(texts: DatasetTask, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        started(texts, **arguments)


def test_a_users_task_says_kind_and_labels_beside_the_model(texts: DatasetTask) -> None:
    own = Task(texts.train, texts.validation, texts.test, loss=texts.loss, score=texts.score, tokenizer=texts.tokenizer)
    found = started(own, config=sets.BERT, kind="text_classification", labels=7).model
    assert found.predict(found.example)["logits"].shape == (2, 7)
    with pytest.raises(ConfigError, match=r"the task does not say what kind it is"):
        started(own, config=sets.BERT)
    with pytest.raises(ConfigError, match=r"the task has no names of classes"):
        started(own, config=sets.BERT, kind="text_classification")


def test_a_student_is_the_teacher_with_other_sizes_and_its_leading_weights(texts: DatasetTask, tmp_path: Path) -> None:
    teacher = started(texts, config={**sets.BERT, "num_hidden_layers": 2}).model
    student = Student(shrink_of="teacher", intermediate_size=8, num_hidden_layers=1).build(teacher, teacher.example)
    first = student.module.bert.encoder.layer[0].intermediate.dense.weight  # type: ignore[union-attr, index]
    theirs = teacher.module.bert.encoder.layer[0].intermediate.dense.weight  # type: ignore[union-attr, index]
    assert torch.equal(first, theirs[:8])
    assert len(student.module.bert.encoder.layer) == 1  # type: ignore[union-attr, arg-type]
    student.save(tmp_path / "student")
    loaded = TorchModel.load(tmp_path / "student")
    assert torch.equal(loaded.predict(teacher.example)["logits"], student.predict(teacher.example)["logits"])
    with pytest.raises(ConfigError, match=r"bert has no setting `widht`"):
        Student(shrink_of="teacher", widht=8).build(teacher, teacher.example)


@pytest.mark.parametrize("labels", [3, None])
def test_a_network_is_built_by_itself_too(labels: int | None) -> None:
    made = network("text_classification", {**sets.BERT, "vocab_size": SIZE}, labels=labels)
    assert made(torch.zeros(1, 4).long()).logits.shape == (1, labels or 2)


def test_an_encoder_decoder_gives_logits_alone_and_generates() -> None:
    config = {**sets.MARIAN, "vocab_size": 30, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    made = network("translation", config).eval()
    ids = torch.randint(2, 30, (2, 5))
    assert list(made(input_ids=ids, decoder_input_ids=ids)) == ["logits"]
    assert made.generate(ids, max_new_tokens=4).shape[0] == 2  # type: ignore[operator]


CONFIG: dict[str, Any] = {"stages": [{"use": "export.onnx"}]}


def test_a_chain_is_told_of_notes_and_warned_of_an_untrained_model_alone(saved: Path, tmp_path: Path) -> None:
    folder = sets.write(tmp_path / "texts", **sets.split(sets.texts(60), train=50, test=10))
    data = {"use": "huggingface", "data": folder, "vocabulary": SIZE}
    trained = {"use": "huggingface", "name": str(saved)}
    for source, warned in ((trained, False), ({"use": "huggingface", "config": sets.BERT}, True)):
        built = build(PipelineConfig.model_validate({**CONFIG, "task": data, "model": source}))
        assert any("the model is untrained" in warning for warning in built.warnings) is warned
        assert "validation is 10% of `train`, drawn with seed 0" in built.notes


def test_folders_beside_the_pipeline_file_are_found_from_anywhere(saved: Path, tmp_path: Path) -> None:
    sets.write(tmp_path / "texts", **sets.split(sets.texts(60), train=50, test=10))
    shutil.copytree(saved, tmp_path / "net")
    data = {"use": "huggingface", "data": "texts", "vocabulary": SIZE, "folder": tmp_path}
    source = {"use": "huggingface", "name": "net", "folder": tmp_path}
    built = build(PipelineConfig.model_validate({**CONFIG, "task": data, "model": source, "folder": tmp_path}))
    assert len(built.task.test) == 10
    assert not any("the model is untrained" in warning for warning in built.warnings)


class Small(nn.Module):
    """What timm's stub makes."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(in_chans, 4, 3), nn.Linear(4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).mean((2, 3)))

    def get_classifier(self) -> nn.Module:
        return self.fc


@pytest.fixture
def images(tmp_path: Path) -> DatasetTask:
    return task(data=sets.write(tmp_path / "images", train=sets.images(40)))


def test_timm_is_an_extra(images: DatasetTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"timm cannot be imported.*pip install 'shrinkline\[timm\]'"):
        timm.model(images, example_inputs(images.train), name="resnet18")


@pytest.mark.parametrize("arguments", [{"checkpoint_path": "x.pth"}, {"name": "hf-hub:someone/else"}])
def test_timm_itself_reads_no_files(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"the weights by `pretrained:` or `weights:`"):
        timm.network(**{"name": "resnet18", **arguments})


def test_timms_weights_are_read_once_and_fit_but_for_the_head(
    images: DatasetTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub = types.ModuleType("timm")
    stub.create_model = lambda name, pretrained, **rest: Small(**rest)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", stub)
    weights, example = Small(1000, 3).state_dict(), example_inputs(images.train)
    save_file(weights, tmp_path / "model.safetensors")
    found = timm.model(images, example, name="small", pretrained=str(tmp_path))
    assert torch.equal(found.model.module.conv.weight, weights["conv.weight"])  # type: ignore[union-attr, arg-type]
    assert found.notes == (f"the weights of {tmp_path} have no fitting fc.bias, fc.weight: these begin untrained",)
    assert found.model.predict(example)["output"].shape == (2, 3)
    found.model.save(tmp_path / "saved")
    (tmp_path / "model.safetensors").unlink()
    assert torch.equal(
        TorchModel.load(tmp_path / "saved").predict(example)["output"], found.model.predict(example)["output"]
    )
    with pytest.raises(ConfigError, match=r"timm names no weights of small on the hub"):
        timm.model(images, example, name="small")
    save_file({"conv.weight": weights["conv.weight"][:2]}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"2 weights do not fit, such as conv\.bias"):
        timm.model(images, example, name="small", pretrained=str(tmp_path))
