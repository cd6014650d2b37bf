"""All that is looked at, in the order in which it is told."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.cli.doctor.finding import Finding
from pipeline.cli.doctor.machine import gpu, processor, room
from pipeline.cli.doctor.packages import packages, runtimes
from pipeline.cli.doctor.tracking import tracking


def examine(
    config: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    runs: Path = Path("runs"),
    require_tracking: bool = False,
) -> list[Finding]:
    """What is here, and what a config would miss.

    Args:
        config: a pipeline file; None for the machine alone.
        overrides: of the config's keys.
        runs: where run folders and the MLflow database are, or will be.
        require_tracking: whether a tracking server that is down counts as missing.
    """
    here = [*packages(), *runtimes(), *processor(), *gpu(), *room(runs), tracking(runs, required=require_tracking)]
    if config is None:
        return here
    from pipeline.cli.doctor.needs import needs  # reading a config takes as long as all before

    return here + needs(config, overrides)
