"""expected.json: what a committed model was like, for limits that are told `of: expected`."""

import base64
import binascii
import json
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from pipeline.base.data.strict import Strict
from pipeline.base.estimate import Estimate
from pipeline.base.files import read_json, write_whole
from pipeline.base.hardware import host
from pipeline.errors import ConfigError
from pipeline.gate.budget import Budget
from pipeline.measure.statistics.pairs import Scores, is_right_or_wrong
from pipeline.records.folder import final_of, verified
from pipeline.records.parts.models import ModelRecord
from pipeline.records.record import Record

SCHEMA_VERSION = 1
MOST_SCORES = 10_000_000
WRITE = "Write it from a run that is as it should be: shrink expect RUN"


class PackedScores(Strict):
    """Scores (N,) as text: base64 of eight right-or-wrong ones a byte, else of zlib's of float32, little end first."""

    count: int = Field(ge=0, le=MOST_SCORES)
    kind: Literal["bits", "float32"]
    data: str

    @classmethod
    def of(cls, scores: Scores) -> "PackedScores":
        """What `scores` gives back; as float32 where they are not right or wrong."""
        if is_right_or_wrong(scores):
            data, kind = np.packbits(scores > 0.5).tobytes(), "bits"
        else:
            data, kind = zlib.compress(scores.astype("<f4").tobytes(), 9), "float32"
        return cls.model_validate({"count": len(scores), "kind": kind, "data": base64.b64encode(data).decode()})

    def scores(self) -> Scores:
        """The scores (N,). Raises ValueError where the text does not hold so many."""
        try:
            data = base64.b64decode(self.data, validate=True)
            if self.kind == "bits":
                packed = np.frombuffer(data, np.uint8)
                values = np.unpackbits(packed, count=self.count) if len(packed) == -(-self.count // 8) else packed[:0]
            else:
                size = np.dtype("<f4").itemsize * self.count
                unpacked = zlib.decompressobj().decompress(data, size + 1)  # no more, whatever it would unfold to
                values = np.frombuffer(unpacked if len(unpacked) == size else b"", "<f4")
        except (binascii.Error, zlib.error) as error:
            raise ValueError(f"the scores cannot be read: {error}") from None
        if len(values) != self.count or not np.isfinite(values).all():
            raise ValueError(f"the scores are not {self.count} finite numbers")
        return values.astype(np.float64)


class Expected(Strict):
    """The figures of a committed model, on which machine and from which data it came, and its test scores.

    `digests` has sha256 sums: `model` of the file to deploy, and one of each split as in a record's data. Intervals are
    those of the run. `scores` are null where the run folder had no predictions any more.
    """

    schema_version: int = SCHEMA_VERSION
    config: str
    seed: int
    form: Literal["torch", "onnx", "seq2seq"]
    size_bytes: int
    payload_bytes: int
    params: int
    macs: int | None
    score: float
    retention: Estimate | None = None
    drop: Estimate | None = None
    test_samples: int
    digests: dict[str, str]
    host: str
    versions: dict[str, str]
    scores: PackedScores | None = None


def needs_expected(budget: Budget) -> bool:
    """Whether any limit is told of the committed model."""
    limits = (budget.retention, budget.size, budget.params, budget.macs)
    return any(limit is not None and limit.of == "expected" for limit in limits)


def load_expected(budget: Budget, folder: Path) -> Expected | None:
    """The committed model's figures where a limit is told of them, else None.

    Args:
        budget: with the file's path.
        folder: of the pipeline file, from which that path goes.

    Raises:
        ConfigError: the file is not there, is damaged or of a later version.
    """
    return load(folder / budget.expected) if needs_expected(budget) else None


def load(path: Path) -> Expected:
    """What `write` wrote. Raises ConfigError where it is not there, is damaged or of a later version."""
    try:
        data: Any = read_json(path)
        version = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            problem = f"it is of version {version}, and this program knows {SCHEMA_VERSION}"
            raise ConfigError(problem, where=str(path), fix=f"Use the program that wrote it. {WRITE}")
        expected = Expected.model_validate(data)
        if expected.scores:
            expected.scores.scores()
        return expected
    except FileNotFoundError:
        problem = "there is no such file"
    except OSError as error:
        problem = f"it cannot be read: {error}"
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"it is damaged: {'.'.join(map(str, first['loc']))} {first['msg']}".rstrip()
    except ValueError as error:
        problem = f"it is damaged: {error}"
    raise ConfigError(problem, where=str(path), fix=WRITE)


def write(expected: Expected, path: Path) -> Path:
    """Write it with sorted keys, whole or not at all; the same run gives the same bytes."""
    try:
        write_whole(path, text(expected))
    except OSError as error:
        raise ConfigError(f"it cannot be written: {error.strerror}", where=str(path)) from None
    return path


def text(expected: Expected) -> str:
    """What stands in the file."""
    return json.dumps(expected.model_dump(mode="json"), sort_keys=True, indent=2) + "\n"


def of_run(record: Record) -> Expected:
    """What is expected of later models: the last model of a run.

    Raises:
        ConfigError: the run did not come to its end, or the file of the model is gone or another than was measured.
    """
    from pipeline.forms.external_data import digest_of

    final = final_of(record)
    file = verified(record, final, "file")
    scores = scores_of(record, final)
    figures = final.model_dump(include=set(Expected.model_fields) - {"digests", "scores"})
    versions: Any = record.environment.get("versions", {})
    return Expected(
        config=str(record.config.get("name")),
        seed=record.seed,
        digests={"model": digest_of(file), **record.split_digests},
        host=host_of(record),
        versions={name: str(version) for name, version in versions.items()},
        scores=None if scores is None else PackedScores.of(scores),
        **figures,
    )


def host_of(record: Record) -> str:
    """The fingerprint of the machine of a run; of a record that does not tell it, this machine's."""
    return str(record.environment.get("host") or host())


def scores_of(record: Record, model: ModelRecord) -> Scores | None:
    """A model's scores (N,) on the test split, from the run folder; None where they are not there any more."""
    from safetensors import SafetensorError, safe_open

    if not (Path(record.folder) / model.predictions).is_file():
        return None
    path = verified(record, model, "predictions")
    try:
        with safe_open(path, framework="np") as file:
            return np.asarray(file.get_tensor("scores"), np.float64)
    except SafetensorError as error:
        raise ConfigError(f"the scores cannot be read: {error}", where=str(path), fix="Run it again") from None
