"""`mapper mirror`: scenes of cities as a local STAC catalog, for nodes without internet."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mapper.cli.options import (
    Aoi,
    CatalogAt,
    City,
    DeviceName,
    Json,
    ModelName,
    RecipeName,
    TileSize,
    TrustModel,
    Year,
)
from mapper.cli.output import human_bytes, print_line, print_table, show_events

if TYPE_CHECKING:
    from mapper.run.mirror.mirror import MirrorReport


def mirror(
    aoi: Aoi,
    year: Year,
    to: Annotated[Path, typer.Option(help="Folder of the mirror")],
    city: City = None,
    recipe: RecipeName = "spectral-10m",
    model: ModelName = None,
    catalog: CatalogAt = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A run's folder: frozen items of its versions instead of a search"),
    ] = None,
    tile_size: TileSize = None,
    jobs: Annotated[int, typer.Option(help="Files copied at a time", min=1, max=64)] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it takes")] = False,
    trust_model: TrustModel = False,
    device: DeviceName = "auto",
    json: Json = False,
) -> None:
    """Copy the scenes that `run` would read into a folder; run it again to resume."""
    from mapper.run.mirror.mirror import MirrorOptions
    from mapper.run.mirror.mirror import mirror as copy_scenes
    from mapper.run.run import RunOptions

    options = RunOptions(
        aoi=aoi,
        year=year,
        cities=tuple(city or ()),
        recipe=recipe,
        model=model,
        catalog=catalog,
        out=out or to / ".no-run",
        tile_size=tile_size,
        trust_model=trust_model,
        device=device,
    )
    with show_events(json) as listener:
        report = copy_scenes(
            MirrorOptions(run=options, to=to, jobs=jobs, dry_run=dry_run), listener
        )
    _print(report, dry_run, json)
    report.check()


def _print(report: "MirrorReport", dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_line({"kind": "done", **asdict(report), "catalog": str(report.catalog)})
        return
    rows = [
        [c.name, ", ".join(f"{n} {count}" for n, count in c.scenes.items()), c.state, c.reason]
        for c in report.cities
    ]
    print_table(rows, ["city", "scenes", "state", "reason"])
    unsized = f" and {report.unsized} of unknown size" if report.unsized else ""
    if dry_run:
        count = report.files - report.held - len(report.failures)
        typer.echo(
            f"{report.files} files, {report.held} there; {count} to copy, "
            f"{human_bytes(report.copy_bytes)}{unsized}; {human_bytes(report.free_bytes)} free"
        )
        return
    typer.echo(
        f"{report.files} files, {report.held} were there, {report.copied} copied "
        f"({human_bytes(report.copy_bytes)}), {len(report.failures)} missing; {report.catalog}"
    )


def add_mirror(app: typer.Typer) -> None:
    """Hang the verb into the command line."""
    app.command()(mirror)
