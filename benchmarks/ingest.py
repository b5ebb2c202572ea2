"""Ingest side by side: mapper, odc-stac, stackstac and a plain range reader, on the same scenes.

Every run is a process of its own; contenders take turns, so that a machine that drifts does so
under all of them. Scenes lie on the disk (in the page cache), or behind a server that waits 0 or
50 ms before each answer. Result: `benchmarks/ingest.json`, rewritten after every step.

    python benchmarks/ingest.py --scenes 6 --size 1024 --repeats 1 --contenders mapper,odc-stac
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from facts import machine, versions, watched
from ingest_rivals import BANDS, Job, composite_of
from ingest_warp import READERS
from range_reader import full_resolution_bytes
from range_server import Served, serving
from scenes import EPSG, NEIGHBOUR, SceneSet, items_at, write_scenes

HERE = Path(__file__).parent
ZONES = {"own": EPSG, "next": NEIGHBOUR}
"""Scenes on the grid's own lattice, and in the neighbouring UTM zone."""
PLACES = ("disk", "0", "50")
"""The disk, or the server's latency in milliseconds."""
PACKAGES = (
    *("mapper", "odc-stac", "stackstac", "bottleneck", "xarray", "dask", "distributed"),
    *("rasterio", "zarr", "numpy", "urllib3"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A contender and its settings."""

    contender: str
    chunk: int = 2048
    threads: int = 16
    processes: int = 1
    reads_alone: bool = False
    """True where no composite is made."""


WAYS = {
    "mapper": Way(contender="mapper"),
    "odc-stac": Way(contender="odc-stac"),
    "odc-stac-1024": Way(contender="odc-stac", chunk=1024),
    "odc-stac-bottleneck": Way(contender="odc-stac-bottleneck", chunk=1024),
    "stackstac": Way(contender="stackstac", chunk=1024),
    "plain": Way(contender="plain", reads_alone=True),
    "plain-2x8": Way(contender="plain", threads=8, processes=2, reads_alone=True),
    "plain-decode": Way(contender="plain-decode", threads=8, processes=2, reads_alone=True),
}


@dataclass(slots=True, kw_only=True)
class Cell:
    """One contender on one set of scenes in one place."""

    zone: str
    place: str
    name: str
    pixels: int
    """Scenes x bands x pixels of the tiles."""
    runs: list[dict[str, Any]] = field(default_factory=list)
    agreement: float | None = None
    """Share of values within 1 of mapper's. It says that the work is the same where all copy
    pixels; of warped scenes it is lower, as their pixels are from elsewhere (`warp`)."""
    reason: str = ""

    @property
    def rates(self) -> list[float]:
        """Million scene pixels a second, slowest first."""
        return sorted(self.pixels / 1e6 / run["seconds"] for run in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        way = WAYS[self.name]
        row: dict[str, Any] = {"zone": self.zone, "place": self.place, "contender": self.name}
        row |= {"chunk": way.chunk} if self.name.startswith(("odc", "stack")) else {}
        if self.runs:
            rates, last = self.rates, self.runs[-1]
            middle = statistics.median(rates)
            row |= {
                "seconds": [run["seconds"] for run in self.runs],
                "mpx_per_s": {
                    "min": round(rates[0], 2),
                    "median": round(middle, 2),
                    "max": round(rates[-1], 2),
                },
                "peak_mib": max(run["peak_mib"] for run in self.runs),
                "held_mib": max(run["held_mib"] for run in self.runs),
                "cpu_seconds": [run["cpu_seconds"] for run in self.runs],
                "tasks": last["tasks"],
                **last["extra"],
            }
            if self.place != "disk":
                row["requests_per_mpx"] = round(last["requests"] / self.pixels * 1e6, 3)
                row["bytes_per_pixel"] = round(last["bytes"] / self.pixels, 3)
                seconds = statistics.median(run["seconds"] for run in self.runs)
                row["megabytes_per_s"] = round(last["bytes"] / seconds / 1e6, 1)
        if self.agreement is not None:
            row["agreement"] = round(self.agreement, 6)
        return row | ({"reason": self.reason} if self.reason else {})


class Bench:
    """Scenes and a server over them, and what has been measured so far."""

    def __init__(self, wanted: argparse.Namespace, server: Served) -> None:
        self.wanted = wanted
        self.server = server
        self.cells: list[Cell] = []
        self.memory: list[dict[str, Any]] = []
        self.warp: list[dict[str, Any]] = []
        self.scene_bytes: dict[str, float] = {}
        self.load = round(os.getloadavg()[0], 2)

    @property
    def root(self) -> Path:
        """Of all scenes; what is served."""
        return scenes_root(self.wanted)

    def scenes(self, zone: str, count: int) -> tuple[SceneSet, Path]:
        """A set in a zone, written unless it is there."""
        wanted = SceneSet(
            scenes=count, tile=self.wanted.size, tiles=self.wanted.tiles, epsg=ZONES[zone]
        )
        return wanted, write_scenes(wanted, self.root)

    def job(self, name: str, place: str, found: tuple[SceneSet, Path], count: int) -> Job:
        """A contender's task; the server is told its latency."""
        scenes, folder = found
        base = str(folder.resolve())
        if place != "disk":
            self.server.reset(float(place))
            base = f"{self.server.address}/{folder.name}"
        way = WAYS[name]
        return Job(
            items=items_at(folder, base)[:count],
            keys=[str(key) for key in scenes.keys],
            out=str(self.wanted.work / "out" / name),
            chunk=min(way.chunk, self.wanted.size),
            threads=way.threads,
            processes=way.processes,
            server="" if place == "disk" else self.server.address,
        )

    def run(self, name: str, job: Job) -> dict[str, Any]:
        """One contender, once. Raises: RuntimeError with the reason where it gives no result."""
        path = self.wanted.work / "job.json"
        path.write_text(json.dumps(asdict(job)), encoding="utf-8")
        script = str(HERE / "ingest_rivals.py")
        command = [sys.executable, "-W", "ignore", script, WAYS[name].contender, str(path)]
        return dict(json.loads(watched(command, self.wanted.limit).splitlines()[-1]))

    def compare(self, zone: str, place: str) -> None:
        """All contenders on one set in one place, in turn."""
        count = self.wanted.scenes
        found = self.scenes(zone, count)
        if place == "disk":
            _warm(found[1])
        pixels = count * len(BANDS) * sum(key.tile**2 for key in found[0].keys)
        cells = [
            Cell(zone=zone, place=place, name=name, pixels=pixels)
            for name in self.wanted.contenders
        ]
        self.cells += cells
        for turn in range(self.wanted.repeats):
            for cell in cells:
                if not cell.reason:
                    self.add(cell, self.job(cell.name, place, found, count), turn)
        self.agree(cells, found)
        self.write()

    def add(self, cell: Cell, job: Job, turn: int) -> None:
        """One more run of a cell, or the reason why there is none."""
        told = f"{cell.zone} zone, {_named(cell.place)}, {cell.name}"
        try:
            run = self.run(cell.name, job)
        except RuntimeError as reason:
            cell.reason = str(reason)
            _say(f"{told}: {cell.reason}")
            return
        cell.runs.append(run)
        rate = cell.pixels / 1e6 / run["seconds"]
        _say(f"{told} {turn + 1}: {rate:.1f} Mpx/s, {run['peak_mib']:.0f} MiB")

    def agree(self, cells: list[Cell], found: tuple[SceneSet, Path]) -> None:
        """Hold each composite against mapper's: a contender that does less work is no rival."""
        made = {}
        for cell in cells:
            if cell.runs and not WAYS[cell.name].reads_alone:
                job = self.job(cell.name, "disk", found, 0)
                made[cell.name] = composite_of(WAYS[cell.name].contender, job)
        mine = made.get("mapper")
        for cell in cells:
            other = made.get(cell.name)
            if mine is not None and other is not None and cell.name != "mapper":
                apart = np.abs(mine.astype(np.int32) - other)
                cell.agreement = float(np.mean(apart <= 1))

    def remember(self) -> None:
        """Mapper's memory by the number of scenes, from disk."""
        counts = self.wanted.memory
        found = self.scenes("own", max(counts))
        for count in counts:
            runs = []
            for turn in range(self.wanted.repeats):
                runs.append(self.run("mapper", self.job("mapper", "disk", found, count)))
                _say(f"{count} scenes {turn + 1}: {runs[-1]['peak_mib']:.0f} MiB")
            row = {"scenes": count, "peak_mib": [run["peak_mib"] for run in runs]}
            self.memory.append(row | {"seconds": [run["seconds"] for run in runs]})
        self.write()

    def place(self) -> None:
        """Position error of warps."""
        readers = {WAYS[n].contender for n in self.wanted.contenders} & set(READERS)
        for name in sorted(readers):
            command = [sys.executable, "-W", "ignore", str(HERE / "ingest_warp.py"), name]
            command += ["--size", str(self.wanted.size), "--root", str(self.root)]
            try:
                rows = json.loads(watched(command, self.wanted.limit).splitlines()[-1])
            except RuntimeError as reason:
                rows = [{"reason": str(reason)}]
            self.warp += [{"contender": name, **row} for row in rows]
        self.write()

    def measure_scenes(self) -> None:
        """Compressed bytes a pixel of the first scene, overviews left out."""
        _, folder = self.scenes("own", self.wanted.scenes)
        for path in sorted((folder / "s000").glob("*.tif")):
            self.scene_bytes[path.stem] = round(full_resolution_bytes(str(path)), 3)

    def write(self) -> None:
        """Everything so far."""
        wanted = self.wanted
        result = {
            "what": "scenes to the median of each band in Zarr; Mpx are scenes x bands x pixels",
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "versions": versions(PACKAGES),
            "options": {
                "scenes": wanted.scenes,
                "bands": list(BANDS),
                "tile": wanted.size,
                "tiles": wanted.tiles,
                "repeats": wanted.repeats,
                "load_before": self.load,
                "scene_bytes_per_pixel": self.scene_bytes,
            },
            "contenders": list(WAYS),
            "targets": targets(self.cells, self.memory),
            "cells": [cell.to_dict() for cell in self.cells],
            "memory": self.memory,
            "warp": self.warp,
        }
        wanted.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def targets(cells: list[Cell], memory: list[dict[str, Any]]) -> dict[str, float]:
    """The ratios that the benchmark is for; those that were not measured are left out."""
    found: dict[str, float] = {}
    best = {(c.zone, c.place, c.name): statistics.median(c.rates) for c in cells if c.runs}
    for (zone, place, name), rate in best.items():
        if name != "mapper":
            continue
        for label, rivals in {
            "odc_stac_median": ("odc-stac", "odc-stac-1024"),
            "odc_stac_bottleneck": ("odc-stac-bottleneck",),
            "stackstac": ("stackstac",),
            "plain": ("plain", "plain-2x8"),
            "plain_decode": ("plain-decode",),
        }.items():
            others = [best[zone, place, n] for n in rivals if (zone, place, n) in best]
            if others:
                found[f"times_{label}_{zone}_{place}"] = round(rate / max(others), 3)
    peaks = {row["scenes"]: statistics.median(row["peak_mib"]) for row in memory}
    if len(peaks) > 1:
        found["memory_growth"] = round(peaks[max(peaks)] / peaks[min(peaks)] - 1, 3)
    return found


def table(result: dict[str, Any]) -> str:
    """The cells as lines of text."""
    head = f"{'zone':5}{'place':7}{'contender':21}{'Mpx/s':>8}{'CPU s':>8}{'MB/s':>8}"
    head += f"{'req/Mpx':>9}"
    lines = [head + f"{'B/px':>7}{'MiB':>7}{'tasks':>7}{'agree':>9}"]
    for cell in result["cells"]:
        start = f"{cell['zone']:5}{_named(cell['place']):7}{cell['contender']:21}"
        if "mpx_per_s" not in cell:
            lines.append(start + cell["reason"])
            continue
        shown = [f"{cell['mpx_per_s']['median']:8.1f}"]
        shown += [f"{statistics.median(cell['cpu_seconds']):8.1f}"]
        shown += [_number(cell.get("megabytes_per_s"), "8.1f")]
        shown += [_number(cell.get("requests_per_mpx"), "9.2f")]
        shown += [_number(cell.get("bytes_per_pixel"), "7.2f")]
        shown += [f"{cell['peak_mib']:7.0f}{cell['tasks']:7}"]
        shown += [_number(cell.get("agreement"), "9.5f")]
        lines.append(start + "".join(shown))
    for part in ("memory", "warp"):
        lines += [json.dumps(row) for row in result[part]]
    return "\n".join([*lines, json.dumps(result["targets"], indent=1)])


def _number(value: float | None, form: str) -> str:
    return " " * int(form.partition(".")[0]) if value is None else format(value, form)


def _warm(folder: Path) -> None:
    """Read every file once, so that the first contender does not pay for the disk."""
    for path in folder.glob("*/*.tif"):
        path.read_bytes()


def _named(place: str) -> str:
    return place if place == "disk" else f"{place} ms"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _listed(known: tuple[str, ...]) -> Any:
    """A type of argument: some of these names, with commas."""

    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def scenes_root(wanted: argparse.Namespace) -> Path:
    """Where scenes are kept from run to run."""
    return Path(wanted.work) / "scenes"


def parse_arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--size", type=int, default=2048, help="side of a tile: 1024 or 2048")
    parser.add_argument("--tiles", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contenders", type=_listed(tuple(WAYS)), default=list(WAYS))
    parser.add_argument("--zones", type=_listed(tuple(ZONES)), default=list(ZONES))
    parser.add_argument("--places", type=_listed(PLACES), default=list(PLACES))
    parser.add_argument(
        "--memory", nargs="*", type=int, default=[20, 100], help="numbers of scenes; none: skip"
    )
    parser.add_argument("--limit", type=float, default=900, help="seconds for one run")
    parser.add_argument("--work", type=Path, default=Path("build/bench-ingest"))
    parser.add_argument("--out", type=Path, default=HERE / "ingest.json")
    return parser.parse_args()


def _steps(wanted: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Zone and place of each comparison; a warped scene's pixels are compared from disk alone."""
    for zone in wanted.zones:
        for place in wanted.places if zone == "own" else wanted.places[:1]:
            yield zone, place


def main() -> None:
    """Run what is asked for."""
    wanted = parse_arguments()
    scenes_root(wanted).mkdir(parents=True, exist_ok=True)
    with serving(scenes_root(wanted)) as server:
        bench = Bench(wanted, server)
        bench.measure_scenes()
        bench.place()
        for zone, place in _steps(wanted):
            bench.compare(zone, place)
        if wanted.memory and "mapper" in wanted.contenders:
            bench.remember()
    print(table(json.loads(wanted.out.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
