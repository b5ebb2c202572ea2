"""`mapper gc`: what a run's folder no longer needs."""

from pathlib import Path
from typing import Annotated

import typer

from mapper.cli.options import Json
from mapper.cli.output import human_bytes, print_json


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(gc)


def gc(
    folder: Annotated[Path, typer.Argument(help="What `run --out` named")],
    keep: Annotated[
        int | None, typer.Option(help="Versions of each product that stay; all by default", min=1)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Drop it; it is only shown otherwise")] = False,
    json: Json = False,
) -> None:
    """Show what nothing refers to any more, and drop it with --yes."""
    from mapper.run.garbage import drop_garbage, find_garbage

    found = drop_garbage(folder, keep) if yes else find_garbage(folder, keep)
    if json:
        print_json(
            {
                "dropped": yes,
                "versions": [version.key for version in found.versions],
                "shards": [str(path.relative_to(folder)) for path in found.shards],
                "leftovers": [str(path.relative_to(folder)) for path in found.leftovers],
                "bytes": found.size,
                "kept_because": found.kept_because,
            }
        )
        return
    for version in found.versions:
        typer.echo(f"version {version.key}")
    for count, what in ((len(found.shards), "shards"), (len(found.leftovers), "leftovers")):
        if count:
            typer.echo(f"{count} {what}")
    if found.kept_because:
        typer.echo(f"shards stay, for {found.kept_because}")
    if found.empty:
        typer.echo("nothing to drop")
        return
    typer.echo(f"{human_bytes(found.size)} {'freed' if yes else 'would be freed by --yes'}")
