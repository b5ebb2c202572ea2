"""Who takes part in the ingest benchmark: scenes in, median composite of each band in Zarr out.

Each runs in a process of its own with the same items, grid, classes that are no ground, and the
same cluster (processes of one thread), and prints one line of JSON. The clock runs from the
first look at the items to the finished store; the cluster is up before, libraries are loaded on
its workers. Mapper's inspection of the scenes, which it does once per scene and run, is timed
apart. `plain` composites nothing: it is the bandwidth that a server gives.

    python benchmarks/ingest_rivals.py odc-stac JOB.json
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from range_reader import fetch_in_processes, files_of
from range_server import Served

from mapper.area.grid import PixelBox, TileKey

INVALID = (0, 1, 3, 8, 9, 10)
"""SCL classes that are no ground."""
BANDS = ("red", "green", "nir")
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a contender is to do."""

    items: list[dict[str, Any]]
    """With absolute addresses."""
    keys: list[str]
    """Tiles, side by side from west to east."""
    out: str
    """Folder for the store, emptied before."""
    workers: int = 2
    chunk: int = 2048
    """Pixels a chunk is wide, for those who have chunks."""
    threads: int = 16
    """Connections at once, for `plain`."""
    processes: int = 1
    """Likewise."""
    server: str = ""
    """Address of the range server that the items lie on, for its counts; empty for a disk."""

    @property
    def tiles(self) -> list[TileKey]:
        """As mapper names them."""
        return [TileKey.parse(text) for text in self.keys]

    @property
    def box(self) -> PixelBox:
        """All tiles as one box."""
        first, last = self.tiles[0].box, self.tiles[-1].box
        return first.union(last)

    @property
    def store(self) -> Path:
        """Where the result goes."""
        return Path(self.out)


@dataclass(slots=True)
class Run:
    """How it went."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of all processes together; it tells a busy machine from a slow contender."""
    tasks: int = 0
    """That went through the scheduler."""
    peak_mib: float = 0.0
    """Resident memory of the processes together, at its highest."""
    held_mib: float = 0.0
    """Of that, what was there before the start."""
    requests: int = 0
    """To the server, within the time."""
    bytes: int = 0
    """From the server, bodies alone."""
    extra: dict[str, float] = field(default_factory=dict)


def mapper(job: Job, run: Run) -> None:
    """Mapper's ingest: one task a tile."""
    from mapper.cube.ingest import TileScenes
    from mapper.cube.inspect import inspect_item

    source = _source()
    with _cluster(job, "import mapper.cube.ingest, mapper.store.shards") as client:
        look = Run()
        with _timed(client, job, look):
            futures = [client.submit(inspect_item, item, source, pure=False) for item in job.items]
            inspections = {found.item: found for found in client.gather(futures)}
        run.extra |= {f"inspect_{n}": getattr(look, n) for n in ("seconds", "tasks", "requests")}
        del futures
        with _timed(client, job, run):
            waiting = [
                client.submit(
                    _ingest,
                    TileScenes(name="s2", key=key, items=tuple(job.items), inspections=inspections),
                    source,
                    job.store,
                    pure=False,
                )
                for key in job.tiles
            ]
            client.gather(waiting)


def _source() -> Any:
    """The recipe's section; no pixel is used against the mask, which the others do not do."""
    from mapper.recipe import Sentinel2Source

    mask = {"invalid": list(INVALID), "always_masked_share": 1}
    bands = {"required": list(BANDS)}
    return Sentinel2Source.model_validate({"kind": "sentinel-2", "bands": bands, "mask": mask})


def _ingest(scenes: Any, source: Any, root: Path) -> None:
    """What a worker does for a tile."""
    from mapper.cube.ingest import ingest_tile
    from mapper.store.shards import write_shards

    layers = ingest_tile(scenes, source)
    write_shards(root, scenes.key, scenes.name, "bench", layers.arrays)


def odc_stac(job: Job, run: Run, reduce: str = "median") -> None:
    """Load with odc-stac and its settings for cloud reads, reduce with xarray."""
    import odc.stac
    import pystac

    where = job.tiles[0].grid.geobox_of(job.box)
    items = [pystac.Item.from_dict(item) for item in job.items]
    with _cluster(job, "import odc.stac, rasterio, xarray, zarr") as client:
        odc.stac.configure_rio(cloud_defaults=True, client=client)
        with _timed(client, job, run):
            found = odc.stac.load(
                items,
                bands=[*BANDS, "scl"],
                geobox=where,
                chunks={"x": job.chunk, "y": job.chunk},
                resampling={"*": "bilinear", "scl": "nearest"},
            )
            ground = ~found["scl"].isin(INVALID)
            seen = found[list(BANDS)].where(ground & (found[list(BANDS)] != 0))
            _write(seen.map(_reduced, how=reduce), job)


def stackstac(job: Job, run: Run) -> None:
    """Stack with stackstac, reduce with xarray."""
    import pystac
    import rasterio
    import stackstac as library

    key = job.tiles[0]
    items = [pystac.Item.from_dict(item) for item in job.items]
    options = {
        "epsg": key.epsg,
        "resolution": key.resolution,
        "bounds": key.grid.bounds_of(job.box),
        "chunksize": (1, 1, job.chunk, job.chunk),
        "dtype": "float32",
        "fill_value": np.float32("nan"),
        "rescale": False,
    }
    smooth = rasterio.enums.Resampling.bilinear
    libraries = "import stackstac, rasterio, xarray, zarr"
    with _cluster(job, libraries) as client, _timed(client, job, run):
        pixels = library.stack(items, assets=list(BANDS), resampling=smooth, **options)
        scl = library.stack(items, assets=["scl"], **options).isel(band=0, drop=True)
        seen = pixels.where(~(scl.isin(INVALID) | scl.isnull()))
        _write(_reduced(seen, "median").to_dataset(dim="band"), job)


def _reduced(seen: Any, how: str) -> Any:
    """Median over time, uint16 with halves rounded up, 0 where nothing was seen."""
    if how == "median":
        middle = seen.median(dim="time")
    else:
        import bottleneck

        axis = seen.get_axis_num("time")
        whole = seen.chunk(time=-1).data
        values = whole.map_blocks(bottleneck.nanmedian, axis=axis, drop_axis=axis, dtype=seen.dtype)
        middle = seen.isel(time=0, drop=True).copy(data=values)
    return np.floor(middle + 0.5).fillna(0).astype(np.uint16)


def _write(composite: Any, job: Job) -> None:
    """To Zarr: pixels alone, a chunk of the store each chunk of the arrays."""
    bare = composite.reset_coords(drop=True).chunk(y=job.chunk, x=job.chunk)
    for layer in bare.variables.values():
        layer.attrs, layer.encoding = {}, {}
    bare.attrs = {}
    bare.to_zarr(job.store, mode="w", zarr_format=3, consolidated=False)


def plain(job: Job, run: Run, decode: bool = False) -> None:
    """A parallel range reader of the blocks that are needed; see `range_reader.py`."""
    files = files_of(job.items, [*BANDS, "scl"])
    with _timed(None, job, run):
        haul = fetch_in_processes(files, job.tiles, job.threads, job.processes, decode)
    run.extra["block_bytes"] = haul.bytes
    run.extra["megabytes_per_s"] = round(haul.bytes / run.seconds / 1e6, 1)


CONTENDERS: dict[str, Callable[[Job, Run], None]] = {
    "mapper": mapper,
    "odc-stac": odc_stac,
    "odc-stac-bottleneck": partial(odc_stac, reduce="bottleneck"),
    "stackstac": stackstac,
    "plain": plain,
    "plain-decode": partial(plain, decode=True),
}


@contextmanager
def _cluster(job: Job, libraries: str) -> Iterator[Any]:
    """Mapper's own local cluster for everybody, warm, its tasks counted."""
    from mapper.run.cluster import open_cluster

    with open_cluster("local", job.workers) as client, client.as_current():
        client.run(_load, libraries)
        yield client


def _load(libraries: str) -> None:
    """On a worker: what will be needed anyway."""
    exec(libraries)


@contextmanager
def _timed(client: Any, job: Job, run: Run) -> Iterator[None]:
    """Seconds, tasks, requests and the highest memory of this process and its children."""
    tasks, asked, busy = _tasks_done(client), _counts(job), _cpu_seconds()
    with _Memory() as memory:
        began = time.perf_counter()
        yield
        run.seconds = round(time.perf_counter() - began, 4)
    run.cpu_seconds = round(_cpu_seconds() - busy, 2)
    run.peak_mib, run.held_mib = round(memory.peak, 1), round(memory.held, 1)
    run.tasks = _tasks_done(client) - tasks
    run.requests, run.bytes = (now - then for now, then in zip(_counts(job), asked, strict=True))


def _counts(job: Job) -> tuple[int, int]:
    """Requests to the server and bytes from it so far."""
    if not job.server:
        return 0, 0
    found = Served(address=job.server).counts()
    return found["requests"], found["bytes"]


def _tasks_done(client: Any) -> int:
    """Tasks that workers have carried out since the cluster began."""
    if client is None:
        return 0
    return int(client.run_on_scheduler(_count_tasks))


def _count_tasks(dask_scheduler: Any) -> int:
    """On the scheduler: by the prefixes of their keys, which outlive the tasks."""
    return sum(prefix.state_counts["memory"] for prefix in dask_scheduler.task_prefixes.values())


class _Memory:
    """The highest resident memory of a process and all below it, looked at every 20 ms."""

    def __init__(self) -> None:
        self.held = self.peak = _resident()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "_Memory":
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, _resident())


def _family() -> Iterator[psutil.Process]:
    """The process itself and all below it."""
    me = psutil.Process()
    yield me
    yield from me.children(recursive=True)


def _resident() -> float:
    """MiB of the family; pages that they share count for each."""
    total = 0
    for process in _family():
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total / MIB


def _cpu_seconds() -> float:
    """Of the family so far, ended children among them."""
    total = 0.0
    for process in _family():
        with suppress(psutil.Error):
            # user, system, and both of children that have ended
            total += sum(process.cpu_times()[:4])
    return total


def composite_of(contender: str, job: Job) -> np.ndarray | None:
    """`(band, y, x)` uint16 of a finished store; None for those that make none."""
    import zarr

    if contender.startswith("plain"):
        return None
    if contender != "mapper":
        layers = [zarr.open_array(job.store / band, mode="r") for band in BANDS]
        return np.stack([np.asarray(layer[...]) for layer in layers])
    parts = []
    for key in job.tiles:
        folder = job.store / "tiles" / str(key) / "s2" / "bench" / "s2"
        parts.append(np.asarray(zarr.open_array(folder, mode="r")[...]))
    return np.concatenate(parts, axis=2)


def main() -> None:
    """Run one contender."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("job", type=Path)
    wanted = parser.parse_args()
    job = Job(**json.loads(wanted.job.read_text(encoding="utf-8")))
    shutil.rmtree(job.store, ignore_errors=True)
    job.store.parent.mkdir(parents=True, exist_ok=True)
    os.environ["DASK_TEMPORARY_DIRECTORY"] = tempfile.mkdtemp(prefix="bench-ingest-")
    run = Run()
    try:
        CONTENDERS[wanted.contender](job, run)
    finally:
        shutil.rmtree(os.environ["DASK_TEMPORARY_DIRECTORY"], ignore_errors=True)
    print(json.dumps(asdict(run)))


if __name__ == "__main__":
    main()
