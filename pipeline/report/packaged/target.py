"""A package for another runtime: what that loads, made anew of the run's model, and a predict.py for it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.files import file_digest
from pipeline.errors import ConfigError
from pipeline.forms.description import load_rest
from pipeline.forms.text.remapped import saved_vocabulary
from pipeline.model import OnnxModel
from pipeline.records.folder import verified
from pipeline.records.parts.models import ModelRecord
from pipeline.records.record import Record
from pipeline.records.rows import is_other_model, place_of, rows_of_last, score_of
from pipeline.report.packaged.describe import describe

PREDICT = Path(__file__).parents[2] / "forms" / "predict.py"

README = """# {name} for {runtime}

The model of the run `{run}` as {runtime} {version} loads it: {size:,} bytes, {score}.

    pip install -r requirements.txt
    python predict.py inputs.npz    # an array for each input, by name; JSON comes out
    sha256sum -c SHA256SUMS

model.json has the inputs and outputs with shapes, dtypes and the values seen in training, labels, preprocessing,
what was measured, digests and versions; `runtime` is how it was made, and how it answers beside ONNX Runtime: its
outputs differ by {difference:.1e} of their range at most, on {count} examples.{batch}
"""

ONE = """

The file takes one example at a time; predict.py gives it one after the other.
"""


@dataclass(frozen=True)
class Target:
    """A runtime to make a package for.

    Args:
        name: of the runtime.
        forms: of a model, those that it takes, by name.
        deploy: deploy(model, folder, may_differ=...) fills a folder and gives what model.json says of it: `name`,
            `version`, `file`, `size_bytes`, `batch`, `requirements`, `session`, `agreement`.
    """

    name: str
    forms: frozenset[str]
    deploy: Callable[..., dict[str, Any]]


def fill(target: Target, record: Record, final: ModelRecord, folder: Path) -> None:
    """Write all files of a package but the digests and the tokenizer.

    Raises:
        ConfigError: the runtime does not take a form of the last model, or is not here.
        StageError: the runtime does not take the model, or answers otherwise.
    """
    model = _opened(target, record, final)
    rows = [row for row in rows_of_last(record) if row.get("runtime") == target.name and score_of(row)]
    if other := next((row for row in rows if is_other_model(row)), None):
        problem = f"{place_of(other)}: its answers are those of another model"
        raise ConfigError(problem, where=record.folder, fix="Package another runtime")
    runtime = target.deploy(model, folder, may_differ=bool(rows))
    content = describe(record, final, model.path) | {"file": runtime["file"], "runtime": runtime}
    content["digests"] |= {"model": file_digest(folder / runtime["file"])}
    (folder / "model.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "predict.py").write_text(_predict(runtime))
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in runtime["requirements"]))
    score = f"score {score_of(rows[0])['value']:.4f} there" if rows else f"score {final.score:.4f} in ONNX Runtime"
    (folder / "README.md").write_text(_readme(record, runtime, score))


def _opened(target: Target, record: Record, final: ModelRecord) -> OnnxModel:
    """The model as the ONNX file that it is deployed as; so the code of a torch model is not needed.

    Raises:
        ConfigError: the runtime does not take it.
    """
    if OnnxModel.form not in target.forms or final.form not in target.forms:
        forms = " or ".join(sorted(target.forms))
        problem = f"{target.name} takes a model of the form {forms}, and the last one is {final.form}"
        fix = "Package another runtime, or load the run's model with pipeline.model.load"
        raise ConfigError(problem, where=record.folder, fix=fix)
    folder, path = verified(record, final, "folder"), verified(record, final, "file")
    if final.form == OnnxModel.form:
        return OnnxModel.load(folder)
    return OnnxModel(path, load_rest(folder, final.form)[1], vocabulary=saved_vocabulary(folder))


def _predict(runtime: dict[str, Any]) -> str:
    """predict.py with the file of the runtime, which session.py opens unless ONNX Runtime does."""
    text = PREDICT.read_text().replace('"model.onnx"', json.dumps(runtime["file"]))
    return text.replace("from onnxruntime import", "from session import") if runtime["session"] else text


def _readme(record: Record, runtime: dict[str, Any], score: str) -> str:
    agreement = runtime["agreement"]["agreement"]
    return README.format(
        name=record.config.get("name", record.run),
        run=record.run,
        runtime=runtime["name"],
        version=runtime["version"],
        size=runtime["size_bytes"],
        score=score,
        count=agreement["examples"],
        difference=agreement["difference"],
        batch=ONE if runtime["batch"] else "",
    )
