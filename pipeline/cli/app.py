"""The command line: every command registered, and every ending turned into its exit code."""

import io
import logging
import os
import sys
import tempfile
import traceback
from typing import Any

import typer

from pipeline.base.quiet import leave_garbage, unreported
from pipeline.cli.doctor.command import doctor
from pipeline.cli.gate import expect, gate
from pipeline.cli.init.command import init
from pipeline.cli.layers import bisect, sensitivity
from pipeline.cli.options import UsageError
from pipeline.cli.report import package, report
from pipeline.cli.run import compare, plan, resume, run, schema, stages, sync
from pipeline.cli.runtimes import app as runtimes_app
from pipeline.cli.store import app as store_app
from pipeline.errors import ResourceError, ShrinkError, is_exhausted, refused
from pipeline.report.mlflow.address import without_secrets

app = typer.Typer(
    name="shrink",
    help="Shrink trained PyTorch models: distill, prune, quantize, export, benchmark, with evidence after each stage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

BUG, INTERRUPTED = 70, 130


for command in (
    run,
    compare,
    resume,
    sync,
    plan,
    sensitivity,
    bisect,
    stages,
    schema,
    gate,
    expect,
    report,
    package,
    init,
    doctor,
):
    app.command()(command)
app.add_typer(runtimes_app)
app.add_typer(store_app)


def main() -> None:
    """Run the command line and turn every ending into its exit code; under torchrun in the first process alone."""
    leave_garbage()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings come once a process and a training
    unreported()
    if int(os.environ.get("RANK", "0")) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.exit(_train_along())
    debug = "--debug" in sys.argv
    sys.stdout, sys.stderr = _open_ended(sys.stdout), _open_ended(sys.stderr)
    _log(debug)
    try:
        code: Any = app(standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
        _say("interrupted")
    except Exception as error:  # noqa: BLE001  # the one place that tells our own bugs from the rest
        code = _explain(error, debug)
    else:
        if code == INTERRUPTED:  # typer turns the interrupt into this code by itself
            _say("interrupted")
    sys.exit(code or 0)


def _train_along() -> int:
    """What a process of a higher rank does: nothing unless the first trains."""
    if not {"run", "resume"} & set(sys.argv[1:2]):
        return 0
    from pipeline.run.distributed import worker

    return worker.main()


def _explain(error: Exception, debug: bool) -> int:
    """Say what went wrong; a traceback only when asked, or in a file where the fault is ours."""
    trace = without_secrets("".join(traceback.format_exception(error)))
    if debug:
        print(trace, file=sys.stderr)  # noqa: T201
    if isinstance(known := refused(error) or error, ShrinkError):
        _say(str(known))
        return known.exit_code
    if is_exhausted(error):
        _say(f"disk or memory ran out: {error}")
        return ResourceError.exit_code
    with tempfile.NamedTemporaryFile("w", prefix="shrink-bug-", suffix=".log", delete=False) as file:
        file.write(trace)
    _say(f"a bug of ours: {type(error).__name__}: {error}; the traceback is in {file.name}")
    return BUG


class _Outlet(io.FileIO):
    """A descriptor whose reader may go, as `head` does; how the work ends is told by the exit code all the same."""

    full = False

    def write(self, data: Any) -> int:
        """The bytes written, or dropped where nobody reads them, and after an error, which is told once."""
        if self.full:
            return memoryview(data).nbytes
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            return memoryview(data).nbytes
        except OSError:
            self.full = True
            raise


def _open_ended(stream: Any) -> Any:
    """A stream of this process through an `_Outlet`; one that stands in for it, as in tests, stays."""
    if stream not in (sys.__stdout__, sys.__stderr__) or stream is None:
        return stream
    stream.flush()
    outlet = io.BufferedWriter(_Outlet(stream.fileno(), "w", closefd=False))
    how = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": stream.line_buffering}
    return io.TextIOWrapper(outlet, **how)


def _say(text: str) -> None:
    print(f"shrink: {without_secrets(text)}", file=sys.stderr)  # noqa: T201


def _log(debug: bool) -> None:
    """Messages go to standard error, so that standard output is data."""
    from pipeline.base.progress import lines

    handler = lines(debug)
    log = logging.getLogger("shrinkline")
    log.setLevel(logging.DEBUG)
    log.handlers[:] = [handler]
    log.propagate = False
