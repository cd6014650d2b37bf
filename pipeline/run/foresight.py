"""What training would end in, or would not change, told before it: exports and stages are tried on untrained models.

What was tried is kept in the store, so that a plan and the runs after it try the same once.
"""

import json
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.base.devices import pick_device, set_seed
from pipeline.base.files import folder_digest, scratch
from pipeline.build.build import Built
from pipeline.context import Preview
from pipeline.deploy import deploy, located
from pipeline.errors import ConfigError, Note, StageError, blame
from pipeline.fit import forms
from pipeline.forms.graph import OPSET
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.run import disk
from pipeline.run.store.changes import Parts
from pipeline.run.store.key import Keys, digest
from pipeline.run.store.store import Store
from pipeline.stage import Stage

NOTES, FILE = "notes.json", "model.onnx"


def foreseen(built: Built, store: Store) -> Built:
    """The same with the notes and warnings of what was tried.

    Raises:
        ConfigError: a model cannot be exported, or a stage could change nothing of it.
    """
    texts = list(_Foresight(built, store).walk())
    warnings = [text for text in texts if not isinstance(text, Note)]
    notes = [text for text in texts if isinstance(text, Note)]
    return replace(built, warnings=(*built.warnings, *warnings), notes=(*built.notes, *notes))


@contextmanager
def _before_work(place: str) -> Iterator[None]:
    """What a stage would fail with is wrong in the config: nothing has run yet."""
    try:
        with blame(ConfigError, place):
            yield
    except StageError as error:
        raise ConfigError(error.found, where=error.where, expected=error.expected, fix=error.fix) from error


class _Foresight:
    def __init__(self, built: Built, store: Store) -> None:
        self.built, self.store = built, store
        self.keys = Keys(built, pick_device(built.config.device))
        self.before: list[Stage] = []
        self.known: list[tuple[Model, Parts]] = []

    def walk(self) -> Iterator[str]:
        """What the stages have to say, as far as the layers of what comes in are known."""
        model = yield from self._through("baseline", self.built.model)
        if isinstance(model, TorchModel):
            self._exported(model, "model")  # the baseline is measured as the file that it is deployed as
        yield from self._through("stages", model)

    def _through(self, chain: str, model: Model | None) -> Generator[str, None, Model | None]:
        """What the stages of a list say, one after the other; gives what comes out of the last one."""
        entries = zip(getattr(self.built, chain), getattr(self.built.config, chain), strict=True)
        preview = Preview(self.built.model, self.built.task, in_baseline=chain == "baseline", isa=self.built.config.isa)
        for (place, stage), entry in entries:
            if model is None:
                return None
            yield from self._reach(place, entry.use, stage, model)
            set_seed(self.built.config.seed)  # an untrained student has the same weights each time
            with _before_work(place):
                model = stage.outlook(model, self.before, preview)
            if isinstance(model, TorchModel) and forms(type(stage))[1] is OnnxModel:
                exported = self._exported(model, place, stage.exported_opset())
                model = None if any(earlier.leaves_out() for earlier in self.before) else exported
            self.before.append(stage)
        return model

    def _reach(self, place: str, use: str, stage: Stage, model: Model) -> list[str]:
        """What a stage says of its reach; nothing is kept for those that say nothing."""
        if type(stage).reach is Stage.reach:
            return []

        def tell(to: Path) -> None:
            with _before_work(place):
                texts = [[isinstance(text, Note), str(text)] for text in stage.reach(model, self.before)]
            (to / NOTES).write_text(json.dumps(texts))

        parts = self.keys.stage(stage, use, self._parts(model), None)
        narrowed = any(earlier.narrows for earlier in self.before)
        folder = self._kept({**parts, "stage": f"{use}, foreseen", "narrowed": narrowed}, place, tell)
        texts = json.loads((folder / NOTES).read_text())
        return [(Note if is_note else str)(f"{place}: {text}") for is_note, text in texts]

    def _exported(self, model: TorchModel, place: str, opset: int = OPSET) -> OnnxModel:
        """The file of an untrained model, which has run on its example."""

        def export(to: Path) -> None:
            with _before_work(place):
                deployed = deploy(model, to / FILE, opset)
                with blame(StageError, "ONNX export"):
                    _run(deployed, model)

        parts = {**self.keys.measure(self._parts(model)), "stage": "export, foreseen", "opset": opset}
        return located(model, self._kept(parts, place, export) / FILE)

    def _kept(self, parts: Parts, place: str, make: Callable[[Path], None]) -> Path:
        """The entry that `make` has filled, once."""
        key = digest(parts)
        disk.make(self.store.root, self.store.root.parent)
        with self.store.claim(key, place):
            if not self.store.find(key):
                with self.store.commit(key, parts) as folder:
                    make(folder)
            self.store.done(key)
        return self.store.path(key)

    def _parts(self, model: Model) -> Parts:
        """What a model is in keys."""
        for other, parts in self.known:
            if other is model:
                return parts
        with tempfile.TemporaryDirectory(dir=scratch()) as name:
            folder = Path(name) / "model"
            model.save(folder)
            self.known.append((model, self.keys.model(folder_digest(folder), folder)))
        return self.known[-1][1]


def _run(deployed: OnnxModel, model: TorchModel) -> None:
    """Run a file on the example of its model. Raises StageError where types forbid it, and what ONNX Runtime raises."""
    others = [(n, p.dtype) for n, p in model.module.named_parameters() if p.dtype in (torch.bfloat16, torch.float64)]
    try:
        with blame(StageError, ""):
            deployed.predict(model.example)
    except StageError as error:
        if not others:
            raise
        name, kind = others[0]
        problem = (
            f"`{name}` is {str(kind).removeprefix('torch.')}, in which ONNX Runtime does not run all of this model"
        )
        fix = "End the builder with `.float()`, and give float32 inputs"
        raise StageError(problem, expected="float32", fix=fix) from error
    finally:
        deployed.close()
