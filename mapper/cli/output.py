"""How a run is shown: progress bars on a terminal, a line a step elsewhere, JSON for machines."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed

from mapper.events import Event, Listener


class JsonLines:
    """Every event as a line of JSON on standard output."""

    def __call__(self, event: Event) -> None:
        """Print one event."""
        print_line(event.to_dict())


class PlainLines:
    """One line an event on standard error, for logs and pipes."""

    def __init__(self, quiet: bool = False) -> None:
        """`quiet` leaves out everything but failures and results."""
        self._quiet = quiet

    def __call__(self, event: Event) -> None:
        """Print one event."""
        if event.state == "planned":
            return
        if self._quiet and event.state != "failed" and event.kind not in {"city", "warning"}:
            return
        where = f"{event.city}: " if event.city else ""
        sys.stderr.write(f"{where}{event.message}\n")
        sys.stderr.flush()


class Bars:
    """A progress bar for each city and stage on a terminal."""

    def __init__(self, console: Console) -> None:
        """Draw on a console."""
        self._progress = Progress(
            TextColumn("{task.fields[city]:<20}"),
            TextColumn("{task.fields[stage]:<8}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            Elapsed(),
            console=console,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> "Bars":
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing."""
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Move a bar, or print what no bar shows."""
        if event.kind == "step" and event.total and event.state != "failed":
            key = (event.city, event.stage)
            if key not in self._tasks:
                self._tasks[key] = self._progress.add_task(
                    "", city=event.city[:20], stage=event.stage, total=event.total
                )
            self._progress.update(self._tasks[key], completed=event.done, total=event.total)
            return
        where = f"{event.city}: " if event.city else ""
        style = "red" if event.state == "failed" else None
        self._progress.console.print(
            f"{where}{event.message}", style=style, highlight=False, markup=False
        )


@contextmanager
def show_events(as_json: bool) -> Iterator[Listener]:
    """The listener that fits where the output goes."""
    console = Console(stderr=True)
    if as_json:
        yield JsonLines()
    elif console.is_terminal and logging.getLogger().level < logging.ERROR:
        with Bars(console) as bars:
            yield bars
    else:
        yield PlainLines(logging.getLogger().level >= logging.ERROR)


def install_logging(verbosity: int) -> None:
    """One handler on standard error; the only place that installs any."""
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(message)s")
    for noisy in ("distributed", "rasterio", "botocore", "urllib3", "asyncio", "bokeh", "tornado"):
        logging.getLogger(noisy).setLevel(max(level, logging.ERROR))


def print_json(value: Any) -> None:
    """A value as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def print_line(value: Any) -> None:
    """A value as one line of JSON on standard output."""
    sys.stdout.write(json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(rows: list[list[str]], header: list[str]) -> None:
    """A table of text columns on standard output, without colours or cut cells."""
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    write: Callable[[str], int] = sys.stdout.write
    for row in [header, *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        write("  ".join(cells).rstrip() + "\n")


def human_bytes(count: int) -> str:
    """Bytes in a unit that people read."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
