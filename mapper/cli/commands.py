"""The verbs. Each gathers its options, calls the library and prints."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import mapper
from mapper.cli.adapting import add_to as add_adapting
from mapper.cli.correcting import add_to as add_correcting
from mapper.cli.keeping import add_to as add_keeping
from mapper.cli.library import models_app, recipe_app, recipes
from mapper.cli.mirror import add_mirror
from mapper.cli.models import app as model_app
from mapper.cli.options import (
    AllowMissing,
    Aoi,
    CatalogAt,
    City,
    ClusterAt,
    Dashboard,
    DeviceName,
    Json,
    MaxScenes,
    Metrics,
    ModelName,
    NetWorkers,
    Out,
    Patience,
    Performance,
    RecipeName,
    Refresh,
    TileSize,
    TrustModel,
    Workers,
    Year,
    band_numbers,
)
from mapper.cli.output import (
    human_bytes,
    install_logging,
    print_json,
    print_line,
    print_table,
    show_events,
)
from mapper.cli.releasing import add_to as add_releasing
from mapper.cli.scheduling import add_to as add_scheduling
from mapper.cli.status import add_to as add_status
from mapper.cli.training import add_to as add_training
from mapper.cli.why import show_changes
from mapper.cluster.options import DASHBOARD, PATIENCE
from mapper.errors import UsageError

app = typer.Typer(
    name="mapper",
    help="Turns a list of cities into maps people trust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(model_app)
app.add_typer(models_app)
app.add_typer(recipe_app)
app.command()(recipes)
add_training(app)
add_adapting(app)
add_mirror(app)
add_scheduling(app)
add_keeping(app)
add_status(app)
add_releasing(app)
add_correcting(app)


@app.callback(invoke_without_command=True)
def main_options(
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say less")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version")] = False,
) -> None:
    """Options of every verb."""
    install_logging(-1 if quiet else verbose)
    if version:
        typer.echo(f"mapper {mapper.__version__}")
        raise typer.Exit


@app.command()
def run(
    aoi: Aoi,
    year: Year,
    city: City = None,
    recipe: RecipeName = "spectral-10m",
    model: ModelName = None,
    catalog: CatalogAt = None,
    max_scenes: MaxScenes = None,
    out: Out = Path("out"),
    cluster: ClusterAt = "local",
    workers: Workers = None,
    tile_size: TileSize = None,
    refresh: Refresh = False,
    trust_model: TrustModel = False,
    allow_missing: AllowMissing = False,
    net_workers: NetWorkers = False,
    dashboard: Dashboard = DASHBOARD,
    patience: Patience = PATIENCE,
    metrics: Metrics = None,
    performance: Performance = True,
    device: DeviceName = "auto",
    json: Json = False,
) -> None:
    """Take polygons to published maps; run it again to resume."""
    from mapper.run.run import run as run_cities

    options = _options(locals())
    with show_events(json) as listener:
        report = run_cities(options, listener)
    _print_report(report, json)
    report.check()


@app.command()
def plan(
    aoi: Aoi,
    year: Year,
    city: City = None,
    recipe: RecipeName = "spectral-10m",
    model: ModelName = None,
    catalog: CatalogAt = None,
    max_scenes: MaxScenes = None,
    out: Out = Path("out"),
    cluster: ClusterAt = "local",
    workers: Workers = None,
    tile_size: TileSize = None,
    refresh: Refresh = False,
    why: Annotated[
        bool, typer.Option("--why", help="With --refresh: which input changed, for each tile")
    ] = False,
    trust_model: TrustModel = False,
    device: DeviceName = "auto",
    json: Json = False,
) -> None:
    """Say what `run` would read, compute and write; reads no pixel."""
    from mapper.run.estimate import estimate_city
    from mapper.run.report import CityResult, RunReport
    from mapper.run.run import make_request, plan_run

    options = _options(locals())
    if why and not refresh:
        raise UsageError("--why is of a refresh; add --refresh")
    plans, lost = plan_run(make_request(options, writing=False))
    if why:
        show_changes(plans, options.out, json)
        return
    estimates = [(p, estimate_city(p)) for p in plans]
    if json:
        content = [
            {
                "city": p.area.slug,
                "finished": p.finished,
                "search": p.accounts,
                "coverage": {n: c.to_dict() for n, c in p.coverage.sources.items()},
                **asdict(e),
            }
            for p, e in estimates
        ]
        print_json({"cities": content, "not_mapped": [asdict(r) for r in lost]})
    else:
        header = ["city", "scenes", "to read", "tiles", "windows", "recompute"]
        header += ["memory", "to write", "state"]
        print_table([_plan_row(p, e) for p, e in estimates], header)
        for one, _ in estimates:
            for name, found in one.coverage.sources.items():
                typer.echo(f"{one.area.slug}, {name}: {found.text}")
        for row in lost:
            typer.echo(f"{row.name}: {row.reason}", err=True)
    planned = [CityResult(slug=p.area.slug, name=p.area.name, state="planned") for p in plans]
    RunReport(results=(*planned, *lost), seconds=0, out=options.out).check()


def _plan_row(plan: Any, estimate: Any) -> list[str]:
    return [
        plan.area.slug,
        ", ".join(f"{n} {count}" for n, count in estimate.scenes.items()),
        human_bytes(estimate.read_bytes),
        f"{estimate.ingest_tiles}/{estimate.predict_tiles}",
        f"{estimate.windows}{f' x {estimate.dates} dates' if estimate.dates > 1 else ''}",
        f"{estimate.recompute:.2f}",
        human_bytes(estimate.memory_bytes),
        human_bytes(estimate.write_bytes),
        "finished" if plan.finished else "begun" if plan.frozen else "new",
    ]


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="An image, or a folder of them")],
    model: Annotated[str, typer.Option(help="Name of a model, or path of its folder")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the maps")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of a recipe's predict section, e.g. mode=blend"),
    ] = None,
    bands: Annotated[
        str | None, typer.Option(help="Bands to read in the model's order, e.g. 3,2,1")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Stored values times this are in physical units")
    ] = None,
    device: DeviceName = "auto",
    trust_model: TrustModel = False,
    json: Json = False,
) -> None:
    """Map single images: a GeoTIFF becomes a COG, a chip a PNG with a palette."""
    from mapper.run.images import ImageWishes
    from mapper.run.predict import PredictOptions, predict_images

    options = PredictOptions(
        image=image,
        model=model,
        out=out,
        settings=tuple(setting or ()),
        images=ImageWishes(bands=band_numbers(bands), scale=scale),
        device=device,
        trust_model=trust_model,
    )
    with show_events(json) as listener:
        report = predict_images(options, listener)
    if json:
        print_line({"kind": "done", "images": [asdict(r) for r in report.results]})
    else:
        rows = [
            [r.image, r.state, ", ".join(r.files) or r.reason, f"{r.seconds:.1f} s"]
            for r in report.results
        ]
        print_table(rows, ["image", "state", "files", "time"])
    report.check()


@app.command()
def cities(
    aoi: Annotated[Path | None, typer.Option(help="Another file of areas")] = None,
    json: Json = False,
) -> None:
    """List the cities that come with mapper, or those of a file."""
    from mapper.area.aoi import read_areas
    from mapper.recipe import data_directory

    areas = read_areas(aoi or data_directory("pipelines") / "cities.geojson")
    if json:
        print_json(
            [
                {"name": a.name, "slug": a.slug, "country": a.country, "bbox": a.geometry.bounds}
                for a in areas
            ]
        )
        return
    rows = [
        [a.name, a.slug, a.country, " ".join(f"{v:.3f}" for v in a.geometry.bounds)] for a in areas
    ]
    print_table(rows, ["name", "slug", "country", "west south east north"])


@app.command()
def demo(out: Out = Path("demo"), workers: Workers = None, json: Json = False) -> None:
    """Map three small simulated cities and hold the maps against the truth."""
    from mapper.cli.demo import run_demo

    with show_events(json) as listener:
        report, scores = run_demo(out, workers, listener)
    _print_report(report, json)
    if json:
        print_line({"kind": "accuracy", "cities": scores})
    else:
        rows = [[s["city"], f"{s['overall_accuracy']:.3f}", s["quicklook"]] for s in scores]
        typer.echo("\nAgreement of the spectral baseline with the simulated truth:")
        print_table(rows, ["city", "overall accuracy", "quicklook"])
    report.check()


@app.command()
def simulate(
    out: Out = Path("simulated"),
    aoi: Annotated[Path | None, typer.Option(help="Areas to simulate, instead of three")] = None,
    year: Year = 2022,
    seed: Annotated[int, typer.Option(help="Of the world")] = 1,
    style: Annotated[
        str, typer.Option(help="Of towns, season and sensor: `default`, `dry` or `northern`")
    ] = "default",
) -> None:
    """Write a simulated archive with its ground truth."""
    from mapper.cli.demo import write_world

    typer.echo(str(write_world(out, aoi, year, seed, style)))


def _options(given: dict[str, Any]) -> Any:
    """The options of `run` and `plan` as the library takes them."""
    from mapper.run.run import RunOptions

    return RunOptions(
        aoi=given["aoi"],
        year=given["year"],
        cities=tuple(given["city"] or ()),
        recipe=given["recipe"],
        model=given["model"],
        catalog=given["catalog"],
        max_scenes=given["max_scenes"],
        out=given["out"],
        cluster=given["cluster"],
        workers=given["workers"],
        tile_size=given["tile_size"],
        refresh=given["refresh"],
        trust_model=given["trust_model"],
        allow_missing=given.get("allow_missing", False),
        net_workers=given.get("net_workers", False),
        dashboard=given.get("dashboard", DASHBOARD),
        patience=given.get("patience", PATIENCE),
        metrics=given.get("metrics"),
        performance=given.get("performance", False),
        device=given["device"],
    )


def _print_report(report: Any, as_json: bool) -> None:
    if as_json:
        cities_done = [asdict(r) for r in report.results]
        print_line({"kind": "done", "seconds": report.seconds, "cities": cities_done})
        return
    rows = [
        [r.name, r.state, str(report.out / r.product) if r.product else r.reason]
        for r in report.results
    ]
    print_table(rows, ["city", "state", "product"])
