"""From Zarr to Zarr: predict tasks over a cube of shards, in one process and on Dask.

    python benchmarks/blocks.py --tiles 4 --network segformer-b0 --device cpu

Writes `benchmarks/blocks.json`: the rate of the same tasks run one after the other in this
process, on Dask workers, and of the model alone; where `nvidia-smi` is there, how busy the GPU was.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from distributed import Client, LocalCluster
from images import town

from mapper.area.grid import TileKey
from mapper.inference.card import load_card
from mapper.inference.coding import Coding, Layer
from mapper.inference.devices import device_name
from mapper.inference.engine import make_engine
from mapper.inference.probe import ModelChoice, Wishes, choose, core_rate
from mapper.recipe import Predict
from mapper.run.execute import run_task
from mapper.run.maps import CubeInputs, LayerShards, ModelUse, PredictTask
from mapper.store.shards import shard_directory, write_shards
from mapper.store.template import ArrayTemplate

HERE = Path(__file__).parent
TILE = 2048
NODATA = 65535
CODING = Coding(
    layers=(
        Layer(
            name="highres",
            dtype="uint16",
            nodata=NODATA,
            channels=(0, 1, 2),
            bands=("red", "green", "blue"),
        ),
    ),
    bands=3,
)
TEMPLATE = ArrayTemplate(
    name="highres", dtype="uint16", fill=NODATA, bands=("red", "green", "blue")
)


def write_cube(root: Path, side: int) -> dict[TileKey, Path]:
    """A square of tiles of a simulated town, as shards."""
    found = {}
    for row in range(side):
        for col in range(side):
            key = TileKey(epsg=32633, resolution=0.5, tile=TILE, row=4000 + row, col=400 + col)
            folder = shard_directory(root, key, "highres", "cube")
            if not folder.exists():
                values = town((side - 1 - row) * TILE, col * TILE, TILE, TILE).astype(np.uint16)
                write_shards(root, key, "highres", "cube", [(TEMPLATE, values)])
            found[key] = folder / "highres"
    return found


def tasks(
    root: Path, shards: dict[TileKey, Path], choice: ModelChoice, side: int, turn: str
) -> list[PredictTask]:
    """One predict task for each block of `side` by `side` tiles."""
    blocks: dict[tuple[int, int], list[TileKey]] = {}
    for key in shards:
        blocks.setdefault((key.row // side, key.col // side), []).append(key)
    grid = next(iter(shards)).grid
    area = shapely.union_all([shapely.box(*grid.bounds_of(key.box)) for key in shards])
    return [
        PredictTask(
            root=root,
            tiles=tuple((key, f"predict/{key}", f"{turn}") for key in keys),
            absent=(),
            inputs=CubeInputs(
                layers={"highres": LayerShards(template=TEMPLATE, shards=shards)}, tile=TILE
            ),
            model=ModelUse(folder=choice.card.folder, plan=choice.plan, coding=CODING, trust=True),
            area=bytes(shapely.to_wkb(area)),
        )
        for keys in blocks.values()
    ]


@contextmanager
def busy_gpu() -> Iterator[list[int]]:
    """Per cent that the GPU is busy, sampled while the block runs."""
    samples: list[int] = []
    program, stop = shutil.which("nvidia-smi"), threading.Event()

    def sample() -> None:
        ask = [str(program), "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not stop.wait(0.2):
            found = subprocess.run(ask, capture_output=True, text=True, check=False).stdout
            samples.extend(int(line) for line in found.split() if line.isdigit())

    thread = threading.Thread(target=sample, daemon=True)
    if program:
        thread.start()
    yield samples
    stop.set()
    if program:
        thread.join()


def chosen(folder: Path, wanted: argparse.Namespace, threads: int) -> ModelChoice:
    """The model with its plan frozen for so many threads."""
    predict = Predict(mode=wanted.mode, size=wanted.size, stride=wanted.stride, threads=threads)
    wishes = Wishes(predict=predict, device=wanted.device, trust=True)
    return choose(load_card(str(folder)), wishes, CODING, None)


def timed(work: Any) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiles", type=int, default=4, help="side of the area in tiles")
    parser.add_argument("--block", type=int, default=2, help="side of a task in tiles")
    parser.add_argument("--network", default="cheap")
    parser.add_argument("--mode", choices=("core", "blend"), default="core")
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--stride", type=int, default=None)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "tensorrt"), default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/bench-inference"))
    parser.add_argument("--out", type=Path, default=HERE / "blocks.json")
    wanted = parser.parse_args()
    root, cores = wanted.work.resolve() / "cube", os.cpu_count() or 1
    shards = write_cube(root, wanted.tiles)
    folder = wanted.work.resolve() / "networks" / f"{wanted.network}-onnx"
    alone, apart = chosen(folder, wanted, cores), chosen(folder, wanted, 1)
    pixels = len(shards) * TILE**2 / 1e6
    engine = make_engine(alone.card, alone.plan, CODING, alone.runtime)
    rows: dict[str, list[float]] = {"one process": [], "dask": [], "model alone": []}
    busy: list[int] = []
    with (
        LocalCluster(n_workers=cores, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        spread = tasks(root, shards, apart, wanted.block, "warm")
        client.gather([client.submit(run_task, task, pure=False) for task in spread])
        for turn in range(wanted.repeats):
            mine = tasks(root, shards, alone, wanted.block, f"one-{turn}")
            with busy_gpu() as samples:
                seconds = timed(lambda mine=mine: [run_task(task) for task in mine])
            busy += samples
            rows["one process"].append(pixels / seconds)
            theirs = tasks(root, shards, apart, wanted.block, f"dask-{turn}")
            seconds = timed(
                lambda theirs=theirs: client.gather(
                    [client.submit(run_task, task, pure=False) for task in theirs]
                )
            )
            rows["dask"].append(pixels / seconds)
            rows["model alone"].append(core_rate(engine, 3.0) / 1e6)
    medians = {name: statistics.median(rates) for name, rates in rows.items()}
    result = {
        "what": "predict tasks from shards to shards, Mpx/s",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"cpu": device_name("cpu"), "cores": cores},
        "options": {n: v for n, v in vars(wanted).items() if n not in ("work", "out")},
        "plan": {"size": alone.plan.size, "stride": alone.plan.stride, "batch": alone.plan.batch},
        "mpx_per_s": {name: [round(r, 2) for r in rates] for name, rates in rows.items()},
        "dask_over_one_process": round(medians["dask"] / medians["one process"], 3),
        "one_process_over_model": round(medians["one process"] / medians["model alone"], 3),
        "gpu_busy_percent": round(statistics.mean(busy), 1) if busy else None,
    }
    kept = json.loads(wanted.out.read_text(encoding="utf-8")) if wanted.out.exists() else {}
    kept[f"{wanted.network} {wanted.device}"] = result
    wanted.out.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
