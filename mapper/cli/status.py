"""`mapper status`: what is done, running and failed, once or as it goes on."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mapper.cli.options import Json
from mapper.cli.output import print_json, print_line, print_table


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(status)


def status(
    folder: Annotated[Path, typer.Argument(help="What `run --out` named")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until nobody runs there any more")
    ] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks", min=0.1)] = 2.0,
    json: Json = False,
) -> None:
    """Say what is done, running and failed in a run's folder, and why."""
    from mapper.run.status import folder_status

    def look() -> Any:
        return folder_status(folder)

    if not watch:
        found = look()
        print_json(asdict(found)) if json else _print(found)
        return
    console = Console()
    if json or not console.is_terminal:
        _print_changes(look, every, json)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            found = look()
            live.update(_drawn(found), refresh=True)
            if found.holder is None:
                return
            time.sleep(every)


def _print_changes(look: Any, every: float, json: bool) -> None:
    """Whatever is not as it was at the last look: for pipes and logs."""
    before = None
    while True:
        found = look()
        if found != before:
            print_line(asdict(found)) if json else _print(found)
        if found.holder is None:
            return
        before = found
        time.sleep(every)


def _rows(found: Any) -> list[list[str]]:
    return [
        [
            v.city,
            v.product,
            f"v{v.version}",
            v.state,
            ", ".join(f"{k} {s['done']}/{s['total']}" for k, s in v.stages.items()),
        ]
        for v in found.versions
    ]


_HEADER = ["city", "product", "version", "state", "steps"]


def _holder(found: Any) -> str:
    return f"held by {found.holder}" if found.holder else "nobody runs here"


def _failures(found: Any) -> list[str]:
    return [f"{v.city}: {failure}" for v in found.versions for failure in v.failures]


def _print(found: Any) -> None:
    typer.echo(_holder(found))
    print_table(_rows(found), _HEADER)
    for failure in _failures(found):
        typer.echo(failure)


def _drawn(found: Any) -> Group:
    table = Table(*_HEADER, box=None, pad_edge=False)
    for row in _rows(found):
        # names come from a file of the user's, and are no markup
        table.add_row(*map(Text, row))
    lines = [Text(line, style="red") for line in _failures(found)]
    return Group(Text(_holder(found)), table, *lines)
