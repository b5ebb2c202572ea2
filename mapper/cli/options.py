"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

from mapper.cluster.options import KINDS
from mapper.errors import UsageError
from mapper.inference.devices import DeviceChoice

Aoi = Annotated[Path, typer.Option(help="GeoJSON, GeoPackage, Shapefile or GeoParquet of areas")]
Year = Annotated[int, typer.Option(help="Calendar year to map", min=1972, max=2100)]
City = Annotated[list[str] | None, typer.Option(help="Name of a city to map; may be repeated")]
RecipeName = Annotated[str, typer.Option(help="Name of a recipe, or path of one")]
ModelName = Annotated[
    str | None, typer.Option(help="Name of a model, or path of its folder, not the recipe's")
]
CatalogAt = Annotated[
    str | None,
    typer.Option(help="STAC API, static catalog, item file or folder, instead of the recipe's"),
]
Out = Annotated[Path, typer.Option(help="Folder of cube, maps, ledger and products")]
ClusterAt = Annotated[
    str,
    typer.Option(help=f"{', '.join(KINDS)}, or the address of a Dask scheduler"),
]
Workers = Annotated[int | None, typer.Option(help="Workers to start", min=1)]
Dashboard = Annotated[str, typer.Option(help="Where the dashboard listens")]
Metrics = Annotated[
    str | None, typer.Option(help="HOST:PORT at which Prometheus may ask how the run goes")
]
Performance = Annotated[
    bool, typer.Option(help="Keep Dask's report of the run as OUT/performance.html")
]
Patience = Annotated[
    float, typer.Option(help="Seconds to wait for a worker that can do what is left", min=1)
]
TileSize = Annotated[
    int | None, typer.Option(help="Side of a tile in pixels: 512, 1024 or 2048", min=256)
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Refresh = Annotated[bool, typer.Option(help="Search anew; what changed becomes the next version")]
TrustModel = Annotated[bool, typer.Option(help="Run a model that is code (TorchScript, .pt2)")]
MaxScenes = Annotated[
    int | None,
    typer.Option(help="Scenes kept per MGRS tile, those of best coverage first", min=1),
]
NetWorkers = Annotated[
    bool,
    typer.Option(help="Read archives on workers alone that offer the Dask resource NET"),
]
AllowMissing = Annotated[
    bool,
    typer.Option(help="Publish although scenes could not be read; the holes are marked"),
]
DeviceName = Annotated[
    DeviceChoice, typer.Option(help="Where the model runs; `auto` takes a GPU where there is one")
]


def band_numbers(text: str | None) -> tuple[int, ...]:
    """`3,2,1` as numbers. Raises: UsageError."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as reason:
        raise UsageError(f"--bands {text!r} is no list of numbers, e.g. 3,2,1") from reason
