"""A folder to deploy, made from a run folder alone: the model, what runs it, what it takes and gives, digests."""

import json
import shutil
from importlib import metadata
from pathlib import Path

import onnx

from pipeline.base.files import file_digest, files_below, whole_folder
from pipeline.base.formatting import interval_text
from pipeline.errors import ConfigError, blame
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.forms.generate import unheeded
from pipeline.forms.graph import save
from pipeline.forms.packed import is_packed
from pipeline.forms.packed import unpacked as unpacked_of
from pipeline.forms.text import tokenizer
from pipeline.forms.text.remapped import saved_vocabulary
from pipeline.measure.size import size_bytes
from pipeline.records.folder import final_of, load_run, verified
from pipeline.records.parts.models import ModelRecord
from pipeline.records.record import Record
from pipeline.report.packaged.describe import deployed_at, describe
from pipeline.report.packaged.target import PREDICT, Target, fill

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


def package(run: Path, output: Path, unpacked: bool = False, target: Target | None = None) -> Path:
    """Make the folder `output`, whole or not at all, and give it.

    Args:
        run: a run folder; its code and data are not needed.
        output: a folder that is not there yet, or is empty.
        unpacked: whether a file with unpacked weights comes along, for runtimes that do not fold constants.
        target: another runtime than ONNX Runtime, which then has its own files in place of the ONNX file.

    Raises:
        ConfigError: the run has no last model, its file is not the one that was measured, or the output is taken; its
            weights are not packed, and unpacked ones are asked for; the runtime is not here.
        StageError: the runtime does not take the model, or answers otherwise.
    """
    record = load_run(run)
    final = _final(record, run)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError("it is there already", where=str(output), expected="a folder that is new or empty")
    temporary = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of one that was killed
    with whole_folder(output, temporary) as folder:
        if target:
            fill(target, record, final, folder)
            _tokenizer(run, final, folder)
            (folder / "SHA256SUMS").write_text(_sums(folder))
            return output
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


def _final(record: Record, run: Path) -> ModelRecord:
    """The last model of a chain that came to its end, its file as it was measured."""
    final, again = final_of(record), f"Go on with it: shrink resume {run}"
    file = verified(record, final, "file")
    with blame(ConfigError, str(file), fix=again):
        size = size_bytes(deployed_at(file))
    if size != final.size_bytes:
        expected = f"the {final.size_bytes:,} bytes that were measured"
        raise ConfigError(f"the model has {size:,} bytes", where=str(file), expected=expected, fix=again)
    return final


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
    graph, *data = deployed_at(file).files()
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
