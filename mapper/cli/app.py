"""The `mapper` command: errors become one line and an exit code."""

import os
import signal
import sys
from types import FrameType

import click
import typer

from mapper.cli.commands import app
from mapper.errors import MapperError


def main() -> None:
    """Run the command line; ends the process with the code of `mapper.errors`."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(standalone_mode=False)
        sys.exit(int(code or 0))
    except MapperError as error:
        sys.stderr.write(f"mapper: {error}\n")
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.exceptions.Abort):
        sys.stderr.write("mapper: interrupted; run again to resume\n")
        sys.exit(130)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _terminated(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the run; what is in the ledger stays done."""
    sys.stderr.write("mapper: terminated; run again to resume\n")
    sys.exit(128 + number)
