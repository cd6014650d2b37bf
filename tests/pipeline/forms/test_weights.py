"""Weights of a user's are found in whatever they are wrapped in, and what does not fit is named."""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from pipeline.base.use import import_file
from pipeline.build.build import build
from pipeline.build.source import load_config
from pipeline.build.start import UNSAFE_ALLOWED
from pipeline.errors import ConfigError
from pipeline.forms.state_dicts import unwrapped
from pipeline.forms.weights import _shapes, check_weights, files_at, load_weights
from pipeline.model import TorchModel
from pipeline.run.store import key
from pipeline.runner import resume, run
from tests.aliases import Make
from tests.forked import shrink

State = dict[str, Any]
Wrap = Callable[[State], Any]

CHAIN = """\
task: {use: data.py}
model: {use: models.py:TinyNet, width: 4, weights: net.pt}
stages: [{use: export.onnx}]
"""


def prefixed(prefix: str) -> Wrap:
    return lambda state: {prefix + key: value for key, value in state.items()}


WRAPPED: dict[str, Wrap] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.1},
    "net": lambda state: {"net": state, "acc": 93.2, "epoch": 1},
    "ema": lambda state: {"ema": state, "updates": 12},
    "nested": lambda state: {"state_dict": {"model": state}},
    "a tensor beside it": lambda state: {"model": state, "best": torch.tensor(0.9)},
    "parallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "compiled and parallel": prefixed("module._orig_mod."),
    "a part compiled": lambda state: {key.replace("conv1.", "conv1._orig_mod."): v for key, v in state.items()},
    "lightning": lambda state: {
        "state_dict": prefixed("model.")(state),
        "hyper_parameters": {"width": 4, "lr": 1e-3, "layers": [1, 2], "name": "tiny", "args": None},
        "pytorch-lightning_version": "2.4.0", "callbacks": {}, "loops": {},
    },
    "averaged": lambda state: {"n_averaged": torch.tensor(4), **prefixed("module.")(state)},
    "settings beside it": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
}  # fmt: skip


def tensors(model: TorchModel) -> State:
    return {key: value.clone() for key, value in model.module.state_dict().items()}


def same(model: TorchModel, other: TorchModel) -> bool:
    ours, theirs = tensors(model), tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def save(state: Any, path: Path) -> Path:
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    return path


@pytest.mark.parametrize(("how", "name"), [
    *((how, "net.pt") for how in WRAPPED), ("parallel", "net.safetensors"), ("compiled", "net.safetensors"),
])  # fmt: skip
def test_a_state_dict_is_found_in_its_wrapping(tiny: Make, tmp_path: Path, how: str, name: str) -> None:
    source, target = tiny(4, seed=1), tiny(4, seed=2)
    assert load_weights(target.module, save(WRAPPED[how](tensors(source)), tmp_path / name)) == []
    assert same(target, source)


class Wrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(2, 3)


def test_a_prefix_stays_that_the_module_has_itself() -> None:
    state = {"model.weight": torch.ones(3, 2), "model.bias": torch.zeros(3)}
    assert list(unwrapped(state, Wrapper())) == ["model.weight", "model.bias"]
    assert list(unwrapped(prefixed("model.")(state), Wrapper())) == ["model.weight", "model.bias"]
    assert list(unwrapped(state, nn.Linear(2, 3))) == ["weight", "bias"]


def test_what_wraps_a_model_may_have_keys_of_its_own() -> None:
    notes: list[str] = []
    state = {"model.weight": torch.ones(3, 2), "model.bias": torch.zeros(3), "loss.weight": torch.ones(1)}
    assert list(unwrapped(state, nn.Linear(2, 3), notes)) == ["weight", "bias"]
    assert notes == ["loss.weight left out: of what wraps the model, whose keys begin with `model.`"]
    assert list(unwrapped({**prefixed("model.")(state), "mean": state["loss.weight"]}, Wrapper())) == [
        "model.weight",
        "model.bias",
        "loss.weight",
    ]


def test_a_torchscript_archive_is_called_so_and_its_weights_load_as_the_message_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, target = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.jit.save(torch.jit.script(net), tmp_path / "net.pt")
    with pytest.raises(ConfigError, match=r"it is a TorchScript archive; expected a state dict") as caught:
        load_weights(target, tmp_path / "net.pt")
    monkeypatch.chdir(tmp_path)
    exec(caught.value.fix.removeprefix("Save its weights: "), {"torch": torch})  # noqa: S102  # ours
    assert load_weights(target, tmp_path / "weights.pt") == []
    assert torch.equal(target.weight, net.weight)


def test_of_two_state_dicts_the_one_that_is_taken_is_said(tiny: Make, tmp_path: Path) -> None:
    model, average, target = tiny(4, seed=1), tiny(4, seed=2), tiny(4, seed=3)
    torch.save({"ema": tensors(average), "model": tensors(model)}, tmp_path / "net.pt")
    (note,) = load_weights(target.module, tmp_path / "net.pt")
    assert "taken from `model`; there is `ema` too" in note
    assert same(target, model)


def folder_of(path: Path, state: State, kind: str) -> Path:
    """As Hugging Face's save_pretrained writes them."""
    path.mkdir()
    stem, names, places = "model" if kind == "safetensors" else "pytorch_model", sorted(state), {}
    for i, part in enumerate((names[:3], names[3:]), 1):
        file = save({name: state[name] for name in part}, path / f"{stem}-0000{i}-of-00002.{kind}")
        places |= dict.fromkeys(part, file.name)
    (path / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("by", ["folder", "index", "one file"])
def test_files_of_a_folder_are_put_together(tiny: Make, tmp_path: Path, kind: str, by: str) -> None:
    source, target = tiny(4, seed=1), tiny(4, seed=2)
    if by == "one file":
        folder = save(
            tensors(source), tmp_path / f"{'model' if kind == 'safetensors' else 'pytorch_model'}.{kind}"
        ).parent
    else:
        folder = folder_of(tmp_path / "hub", tensors(source), kind)
    load_weights(target.module, next(folder.glob("*.index.json")) if by == "index" else folder)
    assert same(target, source)


@pytest.mark.parametrize(("name", "message"), [
    ("../model.safetensors", r"names `\.\./model\.safetensors`; expected files beside it"),
    ("/etc/passwd", "names `/etc/passwd`"),
    ("model-00002.safetensors", "there is no such file; did you mean `model-00001.safetensors`"),
    ("model-00001.safetensors", r"names tensors that none of its files has: conv2\.bias\. Get all of them"),
])  # fmt: skip
def test_an_index_that_names_other_files_is_refused(tiny: Make, tmp_path: Path, name: str, message: str) -> None:
    first = {key: value for key, value in tensors(tiny(4)).items() if key != "conv2.bias"}
    save_file(first, tmp_path / "model-00001.safetensors")
    places = {**dict.fromkeys(first, "model-00001.safetensors"), "conv2.bias": name}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ConfigError, match=message):
        load_weights(tiny(4).module, tmp_path)


def test_what_does_not_fit_is_named_with_how_much_more(tiny: Make, tmp_path: Path) -> None:
    state = {key.replace("conv2", "conv_2"): value for key, value in tensors(tiny(4)).items()}
    state |= {f"extra.{i}": torch.zeros(1) for i in range(7)}
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ConfigError) as caught:
        load_weights(tiny(4).module, tmp_path / "net.pt")
    text = str(caught.value)
    assert "missing: conv2.weight (did you mean `conv_2.weight`" in text
    assert "??" not in text
    assert "unexpected: conv_2.weight, conv_2.bias, extra.0 and 6 more" in text
    assert "The builder must make the module that the weights come from" in text


@pytest.mark.parametrize("prefix", ["backbone.", "model.encoder.", "net.0."])
def test_a_prefix_that_one_side_alone_has_is_told(tmp_path: Path, prefix: str) -> None:
    plain, wrapped = nn.Linear(2, 3), nn.Module()
    parts = prefix.removesuffix(".").split(".")
    inner = wrapped
    for part in parts[:-1]:
        inner.add_module(part, nn.Module())
        inner = inner.get_submodule(part)
    inner.add_module(parts[-1], nn.Linear(2, 3))
    told = prefix.removeprefix("model.")  # which is taken off where that helps
    for module, file, message in [
        (plain, wrapped, f"all keys of the file begin with `{told}`, which the module's do not; missing: weight"),
        (wrapped, plain, f"all keys of the module begin with `{prefix}`, which the file's do not; missing: {prefix}"),
    ]:
        torch.save(file.state_dict(), tmp_path / "net.pt")
        with pytest.raises(ConfigError, match=re.escape(message)) as caught:
            load_weights(module, tmp_path / "net.pt")
        assert str(caught.value).endswith("or save them with its keys.")


def test_a_prefix_that_explains_nothing_is_not_told(tmp_path: Path) -> None:
    for keys in (["body.kernel"], ["body.weight", "bias"], ["weights", "biases"]):
        torch.save({key: torch.ones(1) for key in keys}, tmp_path / "net.pt")
        with pytest.raises(ConfigError, match=r"the keys do not fit; (missing|different)"):
            load_weights(nn.Linear(2, 3), tmp_path / "net.pt")


def test_shapes_and_types_that_differ_are_named(tiny: Make, tmp_path: Path) -> None:
    torch.save(tensors(tiny(6)), tmp_path / "net.pt")
    with pytest.raises(ConfigError, match=r"conv1\.weight is \(6, 1, 3, 3\) in the file, \(4, 1, 3, 3\) in the module"):
        load_weights(tiny(4).module, tmp_path / "net.pt")
    torch.save({**tensors(tiny(4)), "head.bias": torch.zeros(4, dtype=torch.int8)}, tmp_path / "net.pt")
    with pytest.raises(ConfigError, match=r"head\.bias is torch\.int8 in the file, torch\.float32 in the module"):
        load_weights(tiny(4).module, tmp_path / "net.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_other_precisions_become_float32_noted(tiny: Make, tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    state = {key: value.to(dtype) for key, value in tensors(tiny(4, seed=1)).items()}
    target = tiny(4, seed=2)
    (note,) = load_weights(target.module, save(state, tmp_path / f"net.{suffix}"))
    assert note.endswith(f"{str(dtype).removeprefix('torch.')} was loaded as float32")
    found = tensors(target)
    assert all(value.dtype is torch.float32 and torch.equal(value, state[key].float()) for key, value in found.items())


def test_counters_that_old_files_lack_are_not_asked_for(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {key: value for key, value in module.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "net.pt")
    load_weights(module, tmp_path / "net.pt")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(4, 4), nn.Linear(4, 4)
        self.decode.weight = self.encode.weight


def test_tied_weights_that_are_stored_once_are_loaded(tmp_path: Path) -> None:
    source, target = Tied(), Tied()
    save_model(source, str(tmp_path / "net.safetensors"))
    load_weights(target, tmp_path / "net.safetensors")
    assert torch.equal(target.decode.weight, source.decode.weight)
    assert target.decode.weight is target.encode.weight


@pytest.mark.parametrize(("content", "message"), [
    ({"epoch": 3, "body": {"w": torch.ones(1)}}, "it holds `epoch`, `body`; expected a state dict, .*under"),
    ({}, "it holds nothing; expected a state dict"),
    ([1, 2], "it holds a list; expected a state dict"),
    (torch.zeros(1), "it holds a Tensor; expected a state dict"),
    ({"state_dict": {"model": 3}}, "it holds `model`; expected a state dict"),
])  # fmt: skip
def test_no_state_dict_is_refused_with_what_it_has(tiny: Make, tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(ConfigError, match=message):
        load_weights(tiny(4).module, tmp_path / "net.pt")


def test_a_state_dict_in_itself_is_refused() -> None:
    state: State = {}
    state["model"] = state
    with pytest.raises(ConfigError, match="no state dict within 10 wrappings"):
        unwrapped(state)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_digest_is_checked_before_the_file_is_opened(tiny: Make, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(b"not weights at all")
    with pytest.raises(ConfigError, match=rf"net\.pt: its sha256 is {digest(path)}; expected {'0' * 64}"):
        load_weights(tiny(4).module, path, sha256="0" * 64)
    source, target = tiny(4, seed=1), tiny(4, seed=2)
    torch.save(tensors(source), path)
    load_weights(target.module, path, sha256=digest(path).upper())
    assert same(target, source)


def test_a_digest_of_several_files_is_refused(tiny: Make, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "hub", tensors(tiny(4)), "safetensors")
    with pytest.raises(ConfigError, match="`sha256` is of one file, and the weights are in several"):
        load_weights(tiny(4).module, folder, sha256="0" * 64)


class Runs:
    """Leaves a trace where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize(("with_digest", "allowed"), [(False, False), (True, False), (False, True)])
def test_code_in_weights_runs_only_with_both(tiny: Make, tmp_path: Path, with_digest: bool, allowed: bool) -> None:
    path, trace = tmp_path / "net.pt", tmp_path / "trace"
    torch.save({"model": tensors(tiny(4)), "code": Runs(trace)}, path)
    sha256 = digest(path) if with_digest else None
    with pytest.raises(ConfigError, match="it holds more than tensors, or is damaged"):
        check_weights(path, sha256=sha256)
    with pytest.raises(ConfigError, match="it holds more than tensors, or is damaged") as caught:
        load_weights(tiny(4).module, path, sha256=sha256, allow_unsafe_load=allowed)
    assert "its sha256 in `model:`, and --allow-unsafe-load" in str(caught.value)
    assert not trace.exists()


def test_code_in_weights_is_run_where_both_are_given_and_the_digest_is_right(tiny: Make, tmp_path: Path) -> None:
    path, trace = tmp_path / "net.pt", tmp_path / "trace"
    source, target = tiny(4, seed=1), tiny(4, seed=2)
    torch.save({"model": tensors(source), "code": Runs(trace)}, path)
    with pytest.raises(ConfigError, match="its sha256 is"):
        load_weights(target.module, path, sha256="0" * 64, allow_unsafe_load=True)
    assert not trace.exists()
    (warning,) = load_weights(target.module, path, sha256=digest(path), allow_unsafe_load=True)
    assert "it was unpickled, as --allow-unsafe-load says" in warning
    assert trace.is_dir()
    assert same(target, source)


@pytest.fixture
def pickled(project: Make) -> Path:
    """A chain with the digest of a whole module, as torch.save(net) in a script beside models.py writes it."""
    path = project(CHAIN)
    code = "import sys, torch; from models import TinyNet; torch.manual_seed(7); torch.save(TinyNet(4), sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, "net.pt"], cwd=path.parent, check=True)
    path.write_text(CHAIN.replace("net.pt", f"net.pt, sha256: {digest(path.parent / 'net.pt')}"))
    return path


def test_a_pickled_module_is_loaded_where_a_config_and_its_user_say_so(pickled: Path) -> None:
    path = pickled
    with_digest = path.read_text()
    path.write_text(CHAIN)
    with pytest.raises(ConfigError, match=r"it holds more than tensors.*Save module\.state_dict\(\) instead; or"):
        build(*load_config(path))
    path.write_text(with_digest)
    with pytest.raises(ConfigError, match="it holds more than tensors"):
        build(*load_config(path))
    built = build(*load_config(path), allow_unsafe_load=True)
    torch.manual_seed(7)
    expected: dict[str, Tensor] = import_file(path.parent / "models.py").TinyNet(4).state_dict()
    found = built.model.module.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert any("it was unpickled" in warning for warning in built.warnings)
    sys.modules.pop("models")


@pytest.mark.parametrize("where", ["model: {allow_unsafe_load: true, ", "allow_unsafe_load: true\nmodel: {"])
def test_a_config_cannot_allow_it_by_itself(pickled: Path, where: str) -> None:
    pickled.write_text(pickled.read_text().replace("model: {", where))
    with pytest.raises(ConfigError, match="allow_unsafe_load"):
        build(*load_config(pickled))


def test_the_record_has_the_flag_and_a_resumed_run_needs_it_again(pickled: Path, tmp_path: Path) -> None:
    record = run(pickled, runs=tmp_path / "runs", track=False, allow_unsafe_load=True)
    kept = json.loads((Path(record.folder) / "record.json").read_text())
    assert UNSAFE_ALLOWED in kept["warnings"]
    assert any(re.search(r"net\.pt: it was unpickled", text) for text in kept["warnings"])
    assert kept["config"]["model"]["sha256"] == digest(pickled.parent / "net.pt")
    with pytest.raises(ConfigError, match="it holds more than tensors"):
        resume(record.folder, track=False)
    again = resume(record.folder, track=False, allow_unsafe_load=True)
    assert [stage.cached for stage in again.stages] == [True]
    assert UNSAFE_ALLOWED in again.warnings
    sys.modules.pop("models")


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", None], ids=["empty", "text", "cut"])
def test_a_damaged_file_is_told_as_what_it_is(tiny: Make, tmp_path: Path, name: str, content: bytes | None) -> None:
    file = tmp_path / name
    if content is None:
        content = save(tensors(tiny(4)), file).read_bytes()[:-200]
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"it is damaged, or (no file|holds)|or is damaged") as caught:
        load_weights(tiny(4).module, file)
    with pytest.raises(ConfigError, match=r"it is damaged, or (no file|holds)|or is damaged"):
        check_weights(file)
    assert "KeyError" not in str(caught.value)
    assert "builder must make" not in str(caught.value)


def test_weights_that_are_no_numbers_are_not_blamed_on_the_data(tiny: Make, tmp_path: Path) -> None:
    state = tensors(tiny(4))
    state["head.bias"] = torch.full_like(state["head.bias"], float("nan"))
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ConfigError, match=r"head\.bias holds values that are no numbers"):
        load_weights(tiny(4).module, tmp_path / "net.pt")


def test_a_note_on_the_weights_is_in_the_record(project: Make, tmp_path: Path) -> None:
    path = project(CHAIN)
    module = import_file(path.parent / "models.py").TinyNet(4)
    torch.save(module.half().state_dict(), path.parent / "net.pt")
    assert any("float16 was loaded as float32" in note for note in run(path, runs=tmp_path / "runs", track=False).notes)


@pytest.mark.slow
def test_the_commands_have_the_flag(pickled: Path, tmp_path: Path) -> None:
    for words in (["plan", pickled], ["compare", pickled, "--into", tmp_path / "runs"]):
        for flag, code in ([], 2), (["--allow-unsafe-load"], 0):
            ended = shrink(*words, *flag, cwd=pickled.parent)
            assert ended.returncode == code, ended.stderr
    (record,) = (tmp_path / "runs").glob("*/record.json")
    assert UNSAFE_ALLOWED in json.loads(record.read_text())["warnings"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_refused(tiny: Make, tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    for read in (lambda: load_weights(tiny(4).module, tmp_path), lambda: check_weights(tmp_path)):
        with pytest.raises(ConfigError, match=r"index\.json is no index of weights; expected .*weight_map"):
            read()


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_are_checked_without_a_module(tiny: Make, tmp_path: Path, kind: str) -> None:
    state = tensors(tiny(4))
    folder = folder_of(tmp_path / "hub", state, kind)
    check_weights(folder)
    second = next(folder.glob("*-00002-*"))
    second.write_bytes(second.read_bytes()[:-200])
    with pytest.raises(ConfigError, match=rf"hub: {second.name}:? .*damaged"):
        check_weights(folder)
    second.unlink()
    with pytest.raises(ConfigError, match=rf"hub: {second.name}: there is no such file"):
        check_weights(folder)
    file = save(state if kind == "safetensors" else {"model": state}, tmp_path / f"net.{kind}")
    check_weights(file, sha256=digest(file))
    with pytest.raises(ConfigError, match="its sha256 is"):
        check_weights(file, sha256="0" * 64)


def test_checking_weights_reads_no_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"weight": torch.ones(3, 2), "half": torch.ones(1).half()}, tmp_path / "net.safetensors")
    monkeypatch.setattr("pipeline.forms.weights.load_file", None)
    found = _shapes(tmp_path / "net.safetensors")
    assert {name: (tuple(value.shape), value.device.type) for name, value in found.items()} == {
        "weight": ((3, 2), "meta"), "half": ((1,), "meta"),
    }  # fmt: skip
    check_weights(tmp_path / "net.safetensors")


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_all_files_of_the_weights_are_told(tiny: Make, tmp_path: Path, kind: str) -> None:
    folder = folder_of(tmp_path / "hub", tensors(tiny(4)), kind)
    assert set(files_at(folder)) == set(folder.iterdir())
    shard = next(folder.glob("*-00001-*"))
    assert files_at(shard) == [shard]


def test_a_teacher_of_several_files_is_known_by_their_content(project: Make, tiny: Make) -> None:
    teacher = "{use: models.py:TinyNet, width: 4, weights: hub}"
    settings = f"student: {{use: models.py:TinyNet, width: 4}}, teachers: [{teacher}]"
    path = project(f"{CHAIN.partition('stages')[0]}stages: [{{use: distill.logits, epochs: 1, {settings}}}]\n")
    folder = folder_of(path.parent / "hub", tensors(tiny(4)), "safetensors")
    torch.save(tensors(tiny(4)), path.parent / "net.pt")
    kept = key._digests(build(*load_config(path)).stages[0][1])
    assert set(kept) == {f"hub/{file.name}" for file in folder.iterdir()}
