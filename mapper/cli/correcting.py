"""`mapper correct`: polygons that a person knows better than the model."""

from pathlib import Path
from typing import Annotated

import typer

from mapper.cli.options import Json
from mapper.cli.output import print_json, print_table
from mapper.errors import UsageError


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(correct)


def correct(
    folder: Annotated[Path, typer.Argument(help="What `run --out` named")],
    city: Annotated[str, typer.Option(help="Name of the city")],
    add: Annotated[
        Path | None, typer.Option(help="Polygons with the fields class, author and reason")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Id of one to take back")] = None,
    product: Annotated[str | None, typer.Option(help="Recipe and period")] = None,
    json: Json = False,
) -> None:
    """Keep corrections of a city's map; the next `run --refresh` and all later ones apply them."""
    from mapper.run.correcting import change_corrections, corrected_version
    from mapper.run.corrections import read_corrections

    version = corrected_version(folder, city, product)
    if add is not None and drop:
        raise UsageError("--add and --drop are two commands")
    if add is None and not drop:
        found = read_corrections(version)
    else:
        found = change_corrections(version, add, tuple(drop or ()))
    if json:
        print_json([c.to_feature() for c in found])
        return
    rows = [[c.id, c.title, c.author, c.reason, c.added] for c in found]
    print_table(rows, ["id", "class", "author", "reason", "added"])
