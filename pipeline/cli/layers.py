"""The commands that look at single layers: which of them would suffer most, and which cost what a run has lost."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.base.quiet import uncollected
from pipeline.build.syntax.carried import located
from pipeline.cli import options
from pipeline.cli.run import end, with_limit

Stage = Annotated[str | None, typer.Option(help="Which stage, such as quantize.static.", show_default=False)]


@uncollected()
def sensitivity(
    config: options.Config,
    overrides: options.Overrides = [],  # noqa: B006  # typer reads it and does not keep it
    limit: options.Limit = None,
    strategy: options.Strategy = None,
    stage: Stage = None,
    runs: options.Runs = Path("runs"),
    require_tracking: options.RequireTracking = False,
    allow_unsafe_load: options.Unsafe = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Measure how much the answers change where one layer at a time has fewer bits or channels, before the chain's
    first stage that quantizes or prunes; a run of its own, with a report.

    Exit codes as `run`.
    """
    from pipeline.build.source import load_config
    from pipeline.build.syntax.declared import check_declared

    config, overrides = located(config), with_limit(overrides, limit)
    check_declared(*load_config(config, overrides, strategy))
    from pipeline import runner
    from pipeline.run.sensitive import looking

    loading: Any = {"runs": runs, "allow_unsafe_load": allow_unsafe_load}
    with redirect_stdout(sys.stderr):
        with runner.planned(config, overrides=overrides, strategy=strategy, **loading) as (built, _):
            chain = looking(built, "sensitivity", lambda one: one.sensitivity(), stage)
        record = runner.run(chain, require_tracking=require_tracking, **loading)
    return end(record, as_json)


@uncollected()
def bisect(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    stage: Stage = None,
    require_tracking: options.RequireTracking = False,
    allow_unsafe_load: options.Unsafe = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Find the layers that cost what a stage of a run has lost: they are left as they came (of quantize.aware: with
    the trained weights in fp32), in groups that are halved; a run of its own beside it. The code that the run's config
    names is run; where code or data are no longer those of the run it is refused.

    Exit codes as `run`.
    """
    from pipeline import runner
    from pipeline.build.build import build
    from pipeline.run.recorded import recorded
    from pipeline.run.sensitive import check_recorded, looking
    from pipeline.run.store.store import Store

    folder = run.resolve()
    with redirect_stdout(sys.stderr):
        earlier, _, config = recorded(folder)
        built = build(config, allow_unsafe_load=allow_unsafe_load)
        chain = looking(built, "bisect", lambda one: one.bisection(), stage, behind=lambda one: one.bisects_result)
        check_recorded(built, chain, earlier, Store(folder.parent / "store"))
        loading: Any = {"runs": folder.parent, "allow_unsafe_load": allow_unsafe_load}
        record = runner.run(chain, require_tracking=require_tracking, **loading)
    return end(record, as_json)
