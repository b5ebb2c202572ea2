"""`mapper release`: a person lets a candidate be the latest."""

from pathlib import Path
from typing import Annotated

import typer

from mapper.cli.options import City, Json
from mapper.cli.output import print_json, print_table
from mapper.errors import UsageError


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(release)


def release(
    folder: Annotated[Path, typer.Argument(help="What `run --out` named")],
    by: Annotated[str, typer.Option(help="Your name; it stands in the item")] = "",
    note: Annotated[str, typer.Option(help="Why; it stands in the item")] = "",
    city: City = None,
    product: Annotated[str | None, typer.Option(help="Recipe and period")] = None,
    version: Annotated[
        int | None, typer.Option(help="Another than the newest, to go back to it", min=1)
    ] = None,
    json: Json = False,
) -> None:
    """Release what its gates held; without --by and --note, list what waits."""
    from mapper.run.release import chosen, release_all, waiting

    if not by and not note:
        rows = waiting(folder)
        if json:
            print_json([{"version": v.key, "failed": list(failed)} for v, failed in rows])
        elif not rows:
            typer.echo("nothing waits")
        else:
            print_table([[v.key, "; ".join(f) or "not asked yet"] for v, f in rows], _HEADER)
        return
    found = chosen(folder, tuple(city or ()), product, version)
    if not found:
        raise UsageError(
            f"nothing in {folder} waits for a release; --version goes back to an old one"
        )
    made = release_all(found, by, note)
    if json:
        print_json([{"version": v.key, "release": made.to_dict()} for v, made in made])
        return
    for each, _ in made:
        typer.echo(f"{each.key} is the latest")


_HEADER = ["version", "gates that it did not pass"]
