"""A process of rank 1 or more: builds what rank 0 builds, and trains along. It writes, measures and prints nothing.

`python -m pipeline.run.distributed.worker` is started by `shrink run --processes`; under torchrun it is what `shrink`
is in all processes but the first. What comes from rank 0 is JSON; nothing is pickled.
"""

import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

if __name__ == "__main__":  # before the long imports: Ctrl-C is for rank 0 to answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)

import torch
from pydantic import JsonValue
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from pipeline import model as models
from pipeline.base.code.recorder import recorder
from pipeline.base.devices import pick_device, set_seed
from pipeline.base.files import scratch
from pipeline.base.signals import Interrupts
from pipeline.base.world import FOR_EVER, World, is_lost, join
from pipeline.build.build import Built, build
from pipeline.build.config import PipelineConfig
from pipeline.context import Context
from pipeline.errors import ConfigError, Interruption, ShrinkError, StageError, blame
from pipeline.model import Model
from pipeline.run.distributed.launch import launched, rank
from pipeline.run.measuring import DeployedFiles

LOG = logging.getLogger("shrinkline")


def main() -> int:
    """Train along until rank 0 ends or is gone; gives the exit code, 0 for both."""
    LOG.addHandler(logging.NullHandler())  # what there is to say, rank 0 says
    LOG.propagate = False
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with recorder().holding(), Interrupts() as interrupts, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        store, _, _ = next(rendezvous("env://", timeout=FOR_EVER))
        try:
            store.set(f"here/{rank()}", "")
            _work(join(store, rank(), launched()), interrupts)
        except (RuntimeError, ShrinkError) as error:
            if is_lost(error):  # rank 0 says so, or is gone itself
                return 0
            if "--debug" in sys.argv:
                traceback.print_exception(error)
            store.set(f"failed/{rank()}", str(error).removesuffix("."))
            return error.exit_code if isinstance(error, ShrinkError) else StageError.exit_code
        except KeyboardInterrupt:
            return Interruption.exit_code
        dist.destroy_process_group()
    return 0


def _work(world: World, interrupts: Interrupts) -> None:
    """Build what rank 0 has built, then run each stage that it says."""
    run = world.broadcast()
    folder = Path(run["folder"])
    with blame(ConfigError, ""):
        config = PipelineConfig.model_validate({**run["config"], "folder": folder}, context={"folder": folder})
        built = build(config, allow_unsafe_load=run["allow_unsafe_load"])
    digests = {name: summary.digest for name, summary in built.data.items()}
    if different := [name for name, digest in run["data"].items() if digests[name] != digest]:
        fix = "Load the same files everywhere, and draw from generators with a seed"
        raise ConfigError(f"the task has other data here than in rank 0, in {different[0]}", fix=fix)
    stages = dict((*built.baseline, *built.stages))
    while order := world.broadcast():
        with TemporaryDirectory(dir=scratch()) as own:
            ctx = _context(order, built, world, interrupts, Path(own))
            model = models.load(Path(order["incoming"]), folder, allow=None)
            set_seed(config.seed)
            try:
                with blame(StageError, ""):
                    stages[order["place"]].run(model, ctx)
            except Interruption:  # of all processes at the same step
                continue
            world.wait()


def _context(order: Any, built: Built, world: World, interrupts: Interrupts, scratch: Path) -> Context:
    """What rank 0's stage is given, except for all that it says."""
    device = pick_device(built.config.device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    saved = order["baseline"]
    baseline = models.load(Path(saved), built.config.folder, allow=None) if saved else None

    def kept(what: str, model: Model, parts: dict[str, JsonValue], make: Callable[[Path], None]) -> Path:
        folder = world.broadcast()
        if folder is None:
            raise Interruption(f"stopped while {what} was made")
        return Path(folder)

    return Context(
        task=built.task,
        baseline=baseline,
        directory=Path(order["work"]),
        device=device,
        seed=built.config.seed,
        log=LOG,
        progress=lambda description, total: nullcontext(lambda steps=1, note=None: None),
        report=lambda name, value: None,
        deployed=partial(DeployedFiles().of, folder=scratch),
        interrupted=interrupts.requested,
        warn=lambda text: None,
        world=world,
        kept=kept,
    )


def _die_with_parent() -> None:
    """End at once when standard input closes: the process that holds its other end is gone."""

    def watch() -> None:
        os.read(0, 1)  # not by sys.stdin, which this thread would hold while the process ends
        os._exit(0)

    Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _die_with_parent()
    sys.exit(main())
