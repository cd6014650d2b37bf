"""`shrink`, also as `python -m pipeline`."""

import os
import signal
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C ends it at once while it is imported, and until a run answers it by itself."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        process = os.getpid()

        def stop(number: int, frame: FrameType | None) -> None:
            if os.getpid() == process:  # a fork of it ends in silence
                os.write(2, b"shrink: interrupted\n")
            os._exit(INTERRUPTED)

        signal.signal(signal.SIGINT, stop)
    from pipeline.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
