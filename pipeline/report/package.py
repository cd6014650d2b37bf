"""A folder to deploy, made from a run folder alone: the model, what runs it, what it takes and gives, digests."""

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx

from pipeline.base.files import file_digest, files_below, whole_folder
from pipeline.base.formatting import interval_text
from pipeline.errors import ConfigError, blame
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.forms.external_data import digest_of
from pipeline.forms.generate import unheeded
from pipeline.forms.graph import save
from pipeline.forms.packed import is_packed
from pipeline.forms.packed import unpacked as unpacked_of
from pipeline.forms.text import tokenizer
from pipeline.forms.text.remapped import saved_vocabulary
from pipeline.measure.classes import class_name
from pipeline.measure.interface import Range, port, ports
from pipeline.measure.size import size_bytes
from pipeline.model import Deployed, OnnxModel
from pipeline.records.folder import final_of, load_run, verified
from pipeline.records.parts.interface import Interface
from pipeline.records.parts.models import ModelRecord
from pipeline.records.record import Record

SCHEMA_VERSION = 1
PREDICT = Path(__file__).parents[1] / "forms" / "predict.py"
GENERATE = PREDICT.with_name("generate.py")
RUNTIME = ("onnxruntime", "numpy")

README = """# {name}

The model of the run `{run}`: {size:,} bytes, score {score:.4f}, retention {kept}.

    pip install -r requirements.txt
    python predict.py inputs.npz    # an array for each input, by name; JSON comes out
    sha256sum -c SHA256SUMS

model.json has the inputs and outputs with shapes, dtypes and the values seen in training, labels, preprocessing,
what was measured, digests and versions.
"""

UNPACKED = """
unpacked.onnx gives the same outputs and has its weights as plain integers, for runtimes that would decode those of
model.onnx at each call.
"""

TOKENIZER = """
tokenizer.json makes the inputs of texts: `tokenizers.Tokenizer.from_file("tokenizer.json").encode(text).ids`. It is the
model's own: with any other, also the one it was pruned from, the ids mean something else.
"""


def package(run: Path, output: Path, unpacked: bool = False) -> Path:
    """Make the folder `output`, whole or not at all, and give it.

    Args:
        run: a run folder; its code and data are not needed.
        output: a folder that is not there yet, or is empty.
        unpacked: whether a file with unpacked weights comes along, for runtimes that do not fold constants.

    Raises:
        ConfigError: the run has no last model, its file is not the one that was measured, or the output is taken; its
            weights are not packed, and unpacked ones are asked for.
    """
    record = load_run(run)
    final = _final(record, run)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError("it is there already", where=str(output), expected="a folder that is new or empty")
    temporary = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of one that was killed
    with whole_folder(output, temporary) as folder:
        _copy(run / final.file, folder)
        if unpacked:
            _unpack(run / final.file, folder / "unpacked.onnx")
        _tokenizer(run, final, folder)
        content = describe(record, final, folder if final.form == Seq2SeqOnnx.form else folder / "model.onnx")
        content |= _generation(run, final)
        (folder / "model.json").write_text(json.dumps(content, indent=2) + "\n")
        shutil.copyfile(GENERATE if final.form == Seq2SeqOnnx.form else PREDICT, folder / "predict.py")
        (folder / "requirements.txt").write_text("".join(f"{name}=={_version(record, name)}\n" for name in RUNTIME))
        beside = TOKENIZER if (folder / tokenizer.FILE).is_file() else ""
        beside += UNPACKED if unpacked else ""
        (folder / "README.md").write_text(_readme(record, final) + beside)
        (folder / "SHA256SUMS").write_text(_sums(folder))
    return output


def describe(record: Record, final: ModelRecord, graph: Path) -> dict[str, Any]:
    """What stands in model.json.

    `classifier` is null unless predictions are logits of classes; then it has the output and its labels in order.
    """
    ports = record.interface or interface_of(graph)
    figure_names = ("size_bytes", "payload_bytes", "params", "macs", "compression_ratio", "score", "retention", "drop")
    figures = final.model_dump(mode="json", include={*figure_names, "test_samples", "validation_score"})
    return {
        "schema_version": SCHEMA_VERSION,
        "name": record.config.get("name", record.run),
        "run": record.run,
        "file": "." if graph.is_dir() else graph.name,
        **ports.model_dump(mode="json", include={"inputs", "outputs", "labels", "preprocessing"}),
        "classifier": classifier(ports, final),
        "figures": {**figures, "verdict": record.verdict},
        "digests": {"model": digest_of(graph), "data": record.data},
        "versions": record.environment.get("versions", {}),
        "seed": record.seed,
        "started": record.started,
    }


def classifier(ports: Interface, final: ModelRecord) -> dict[str, Any] | None:
    """The output with the logits of classes, and the labels in order; None where predictions are something else.

    Classes are measured where predictions are logits (N, classes) and nowhere else, so that they are there tells it. A
    class without a name has its number.
    """
    scored = [port for port in ports.outputs if port.name == ports.scored]
    output, names = [*scored, *ports.outputs][0], ports.labels
    if not final.classes or len(output.shape) != 1:
        return None
    count = output.shape[0] if output.shape[0] > 0 else len(names)
    labels = [class_name(i, names) for i in range(count)]
    return {"output": output.name, "labels": labels} if labels else None


def interface_of(graph: Path) -> Interface:
    """Names, shapes and dtypes of a file's inputs and outputs, for a run that did not keep them; -1 is any length."""
    inputs, outputs = ports(_at(graph))
    unseen = Range()
    return Interface(
        inputs=[port(value, unseen) for value in inputs], outputs=[port(value, unseen) for value in outputs]
    )


def _final(record: Record, run: Path) -> ModelRecord:
    """The last model of a chain that came to its end, its file as it was measured."""
    final, again = final_of(record), f"Go on with it: shrink resume {run}"
    file = verified(record, final, "file")
    with blame(ConfigError, str(file), fix=again):
        size = size_bytes(_at(file))
    if size != final.size_bytes:
        expected = f"the {final.size_bytes:,} bytes that were measured"
        raise ConfigError(f"the model has {size:,} bytes", where=str(file), expected=expected, fix=again)
    return final


def _at(file: Path) -> Deployed:
    return Seq2SeqOnnx(file, {}) if file.is_dir() else OnnxModel(file, {})


def _generation(run: Path, final: ModelRecord) -> dict[str, int]:
    """How many tokens the files of an encoder-decoder were measured with.

    Raises:
        ConfigError: they generate in a way that predict.py does not.
    """
    if final.form != Seq2SeqOnnx.form:
        return {}
    model = Seq2SeqOnnx.load(run / final.folder)
    if others := unheeded(model.settings):
        fix = f"Have Optimum generate: ORTModelForSeq2SeqLM.from_pretrained('{model.path}')"
        problem = f"its generation_config has {', '.join(others)}"
        raise ConfigError(problem, where=str(model.path), expected="greedy search, which predict.py does", fix=fix)
    return {"max_tokens": model.tokens}


def _copy(file: Path, folder: Path) -> None:
    """Copy the graph as model.onnx and its external data to where the graph looks for it, compared by digest."""
    graph, *data = _at(file).files()
    places = {graph: folder / (graph.name if file.is_dir() else "model.onnx")}
    for part in data:
        if not part.resolve().is_relative_to(graph.parent.resolve()):
            raise ConfigError(f"its data lies elsewhere, at {part}", where=str(graph), expected="data beside the graph")
        places[part] = folder / part.relative_to(graph.parent)
    for source, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        if file_digest(source) != file_digest(place):
            raise ConfigError("the copy differs from the file", where=str(source), fix="Look at the disk, then repeat")


def _unpack(file: Path, place: Path) -> None:
    """Write a packed file as it decodes."""
    if file.is_dir() or not is_packed(onnx.load(file, load_external_data=False).graph):
        raise ConfigError("its weights are not packed", where=str(file), fix="Leave --unpacked out")
    save(unpacked_of(file), place)


def _tokenizer(run: Path, final: ModelRecord, folder: Path) -> None:
    """Write the tokenizer.json that the model's inputs are made with, where its task has one."""
    vocabulary, whole = saved_vocabulary(run / final.folder), run / tokenizer.FILE
    if vocabulary:
        (folder / tokenizer.FILE).write_text(vocabulary.pruned)
    elif whole.is_file():
        shutil.copyfile(whole, folder / tokenizer.FILE)


def _version(record: Record, name: str) -> str:
    """The version that the model was measured with; that which is installed for a record that does not say."""
    versions = record.environment.get("versions")
    version = versions.get(name) if isinstance(versions, dict) else None
    return str(version or metadata.version(name))


def _readme(record: Record, final: ModelRecord) -> str:
    retention_text = interval_text(final.retention) if final.retention else "not measured"
    name = str(record.config.get("name", record.run))
    return README.format(name=name, run=record.run, size=final.size_bytes, score=final.score, kept=retention_text)


def _sums(folder: Path) -> str:
    """What `sha256sum -c` reads."""
    return "".join(f"{file_digest(path)}  {path.relative_to(folder)}\n" for path in files_below(folder))
