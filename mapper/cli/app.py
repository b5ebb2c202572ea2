"""The `mapper` command: errors become one line and an exit code."""

import os
import signal
import sys
from types import FrameType

from mapper.cli.commands import app
from mapper.errors import MapperError, UsageError

_TRAINING = {"torch", "lightning", "torchmetrics", "transformers", "safetensors", "matplotlib"}
"""What comes with `mapper[train]` alone."""


def main() -> None:
    """Run the command line; ends the process with the code of `mapper.errors`."""
    # blocks are read once, row by row; GDAL's own 5 % of the memory would come on top
    os.environ.setdefault("GDAL_CACHEMAX", "64")
    signal.signal(signal.SIGTERM, _stopped)
    signal.signal(signal.SIGINT, _stopped)
    try:
        app()
    except MapperError as error:
        sys.stderr.write(f"mapper: {error}\n")
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in _TRAINING:
            raise
        sys.stderr.write(f"mapper: this takes {error.name}; install mapper[train]\n")
        sys.exit(UsageError.exit_code)


def _stopped(number: int, frame: FrameType | None) -> None:
    """A signal ends the run; what is in the ledger stays done."""
    sys.stderr.write("mapper: stopped; run again to resume\n")
    sys.exit(128 + number)
