"""`mapper adapt`: a network learns a place without labels."""

import logging
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from mapper.cli.options import AllowMissing, CatalogAt, City, ClusterAt, Json, MaxScenes, TileSize
from mapper.cli.output import print_line, print_table, show_events
from mapper.cli.training import Layout, Settings, with_data
from mapper.errors import UsageError
from mapper.events import ignore
from mapper.recipe import load_recipe
from mapper.recipe.adapting import MethodName
from mapper.recipe.settings import train_section
from mapper.recipe.training import Data

if TYPE_CHECKING:
    from mapper.run.adapt.request import CitiesReport
    from mapper.training.adapt.driver import AdaptReport


def adapt(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or path of one")],
    source: Annotated[Path, typer.Option(help="Folder of labelled images")],
    target: Annotated[
        Path,
        typer.Option(help="Folder of images, what `run --out` named, or a file of areas to map"),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of weights and models")],
    method: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(get_args(MethodName))}")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Weights of the source; without them it is trained on first"),
    ] = None,
    layout: Layout = None,
    target_layout: Annotated[
        str | None, typer.Option(help="How a folder of target images is laid out, if otherwise")
    ] = None,
    setting: Settings = None,
    judge: Annotated[
        Path | None,
        typer.Option(help="Labelled images of the target, for the report; nothing is chosen by it"),
    ] = None,
    city: City = None,
    product: Annotated[str | None, typer.Option(help="Recipe and period, of several")] = None,
    together: Annotated[
        bool, typer.Option("--together", help="One model for all cities, not one each")
    ] = False,
    predict: Annotated[
        bool, typer.Option(help="Map each city by its own model, as its next version")
    ] = True,
    aoi: Annotated[
        Path | None, typer.Option(help="Areas of a run, where its items are not to be asked")
    ] = None,
    year: Annotated[
        int | None, typer.Option(help="Calendar year that areas are mapped for", min=1972, max=2100)
    ] = None,
    catalog: CatalogAt = None,
    max_scenes: MaxScenes = None,
    model: Annotated[
        str | None, typer.Option(help="That a run was made with, where it is not the recipe's")
    ] = None,
    tile_size: TileSize = None,
    allow_missing: AllowMissing = False,
    cluster: ClusterAt = "local",
    workers: Annotated[
        int | None,
        typer.Option(help="Cities side by side; of one model, processes that read", min=1),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the network learns and maps")
    ] = "auto",
    devices: Annotated[int, typer.Option(help="GPUs that train one model", min=1)] = 1,
    json: Json = False,
) -> None:
    """Adapt a recipe's network to images or cities without labels; run it again to resume."""
    from mapper.run.adapt.batch import adapt_cities, adapt_images
    from mapper.run.adapt.request import AdaptRequest, check_options, settled
    from mapper.training.trainer import first_process

    settings = [*_of_method(method), *(setting or ())]
    plain = load_recipe(recipe)

    def laid_out(folder: Path, how: str | None) -> Data:
        return train_section(with_data(plain, folder, how, settings)).data

    request = AdaptRequest(
        recipe=with_data(plain, source, layout, settings),
        recipe_name=recipe,
        source=source,
        target=target,
        out=out,
        start=start,
        given=laid_out(target, target_layout or layout),
        judge=judge,
        judged=laid_out(judge, target_layout or layout) if judge else None,
        cities=tuple(city or ()),
        product=product,
        together=together,
        predict=predict,
        aoi=aoi,
        year=year,
        catalog=catalog,
        max_scenes=max_scenes,
        model=model,
        cluster=cluster,
        workers=workers,
        device=device,
        devices=devices,
        tile_size=tile_size,
        allow_missing=allow_missing,
    )
    request = settled(request)
    kind = check_options(request)
    if target_layout and kind != "images":
        raise UsageError("--target-layout is of a folder of images; leave it out")
    if not first_process():
        # it learns along, and the first has warned of all that there is
        logging.disable(logging.WARNING)
    with show_events(json) if first_process() else nullcontext(ignore) as listener:
        if kind == "images":
            found = adapt_images(request, listener)
        else:
            report = adapt_cities(request, listener)
    if kind == "images":
        if first_process():
            _print_one(found, json)
        return
    if first_process():
        _print_cities(report, json)
    report.check()


def _of_method(method: str | None) -> list[str]:
    """As a setting of the recipe. Raises: UsageError for one that there is not."""
    if method is None:
        return []
    known = get_args(MethodName)
    if method not in known:
        raise UsageError(f"--method {method!r}; use one of {', '.join(known)}")
    return [f"adapt.method={method}"]


def _print_one(report: "AdaptReport", as_json: bool) -> None:
    if as_json:
        model = str(report.out / "model")
        print_line({"kind": "done", **asdict(report), "out": str(report.out), "model": model})
        return
    rows = [[name, f"{value:.4f}"] for name, value in report.scores.items()]
    chosen = [["method", report.method], ["epoch", f"{report.epoch}, by {report.chosen_by}"]]
    pace = [["Mpx/s", f"{report.megapixels_per_second:.2f}"], ["GiB", f"{report.memory_gib:.1f}"]]
    print_table([*chosen, *rows, *pace], [str(report.out), "adapted"])


def _print_cities(report: "CitiesReport", as_json: bool) -> None:
    if as_json:
        cities = [asdict(city) for city in report.cities]
        about = {"out": str(report.out), "run": str(report.run), "seconds": report.seconds}
        print_line({"kind": "done", **about, "cities": cities})
        return
    rows = [
        [
            city.slug,
            city.state,
            city.method or "-",
            f"{city.epoch} by {city.chosen_by}" if city.method else "-",
            "-" if city.changed is None else f"{city.changed:.2%}",
            str(report.run / city.map) if city.map else city.reason or "-",
        ]
        for city in report.cities
    ]
    print_table(rows, ["city", "state", "method", "epoch", "changed", "map"])


def add_to(app: typer.Typer) -> None:
    """Hang the verb into the command line."""
    app.command()(adapt)
