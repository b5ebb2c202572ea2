"""Tiled inference side by side: mapper, its peers, and the network alone, each in its own process.

Contenders take turns, so that a machine that drifts does so under all of them. A cell that does
not fit into memory or time is not left out: it says why. Result: `benchmarks/inference.json`,
rewritten after every cell.

    python benchmarks/inference.py --sizes 4096x4096 --networks cheap --contenders monai geoai
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from facts import machine, versions, watched
from images import LEFT, RESOLUTION, TOP, write_image
from measures import agreement, seam_index, translation_consistency
from networks import NETWORKS, WINDOW

HERE = Path(__file__).parent
SIZES = ("4096x4096", "8192x8192", "16384x16384", "65536x8192")
STRIDE, BATCH = 384, 4
SHIFTS = (37, 64)
"""How far the windows are moved, in pixels. A network that halves its picture five times answers
otherwise for 37 on its own account; for 64 it does not, and what is left is the windows'."""
MIB = 2**20
MEMORY_SHARE = 0.7
"""A cell that by its smaller neighbour would need more of the machine's memory is not run."""
RESOLUTIONS = (0.5, 1.0, 10.0)
PACKAGES = ("torch", "onnxruntime-gpu", "transformers", "monai", "terratorch", "geoai-py")
PACKAGES += ("mapper", "numpy", "rasterio")


@dataclass(frozen=True, slots=True)
class Way:
    """A contender and the windows it is given."""

    contender: str
    mode: str = "blend"
    extra: tuple[str, ...] = ()
    streams: bool = False
    """True where memory is said not to grow with the picture."""
    blind: bool = False
    """True for a network alone, whose map is a by-product."""

    def windows(self, network: str) -> tuple[int, int]:
        """Size and stride."""
        if self.mode == "blend":
            return WINDOW, STRIDE
        if NETWORKS[network].global_context:
            return WINDOW, WINDOW // 2
        return WINDOW + NETWORKS[network].receptive_field - 1, WINDOW


WAYS = {
    "monai": Way("monai"),
    "terratorch": Way("terratorch"),
    "geoai": Way("geoai"),
    "torch-alone": Way("torch-alone", blind=True),
    "torch-alone-core": Way("torch-alone", "core", blind=True),
    "onnxruntime-alone": Way("onnxruntime-alone", blind=True),
    "onnxruntime-alone-core": Way("onnxruntime-alone", "core", blind=True),
    "mapper-core": Way("mapper", "core", streams=True),
    "mapper-hann": Way("mapper", "blend", ("--set", "weights=hann"), streams=True),
    "mapper-gaussian": Way("mapper", "blend", ("--set", "weights=gaussian"), streams=True),
    "mapper-torchscript": Way("mapper", "core", ("--form", "torchscript"), streams=True),
    "mapper-command": Way("command", "core", streams=True),
}
TRUTH = "torch-alone-core"
"""Its map is what labels are held against: exact for a network with a small receptive field."""


@dataclass
class Cell:
    """One contender over one picture with one network."""

    size: tuple[int, int]
    network: str
    name: str
    seconds: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    quality: dict[str, float | str] = field(default_factory=dict)
    reason: str = ""

    @property
    def pixels(self) -> int:
        """Of the picture."""
        return self.size[0] * self.size[1]

    @property
    def bytes_per_pixel(self) -> float:
        """At the peak of memory."""
        return max(self.peaks) * MIB / self.pixels

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        height, width = self.size
        row: dict[str, Any] = {"rows": height, "columns": width, "network": self.network}
        way = WAYS[self.name]
        side, stride = way.windows(self.network)
        row |= {"contender": self.name, "window": side, "stride": stride, "mode": way.mode}
        if self.seconds:
            rates = sorted(self.pixels / 1e6 / s for s in self.seconds)
            middle = statistics.median(rates)
            row |= {
                "seconds": self.seconds,
                "mpx_per_s": {
                    "min": round(rates[0], 3),
                    "median": round(middle, 3),
                    "max": round(rates[-1], 3),
                },
                "km2_per_s": {f"{r:g}_m": round(middle * r * r, 3) for r in RESOLUTIONS},
                "peak_mib": max(self.peaks),
                "bytes_per_pixel": round(self.bytes_per_pixel, 1),
            }
        if self.quality:
            row["quality"] = self.quality
        if self.reason:
            row["reason"] = self.reason
        return row


class Bench:
    """Pictures, networks and label maps in one folder, and the cells so far."""

    def __init__(self, wanted: argparse.Namespace) -> None:
        self.wanted = wanted
        self.folder: Path = wanted.work
        self.models = self.folder / "networks"
        self.cells: list[Cell] = []
        self.folder.mkdir(parents=True, exist_ok=True)

    def image(self, size: tuple[int, int], shift: int = 0, keep_corner: bool = False) -> Path:
        """A picture, written unless it is there."""
        height, width = size
        kept = "-kept" if keep_corner else ""
        path = self.folder / f"town-{height}x{width}+{shift}{kept}.tif"
        if not path.exists():
            part = path.with_suffix(".part")
            write_image(part, height, width, shift=shift, keep_corner=keep_corner)
            part.rename(path)
        return path

    def labels(self, cell: Cell, shift: str = "") -> Path:
        """Where a map goes; the next one of its kind takes its place."""
        return self.folder / f"labels-{cell.network}-{cell.name}{shift}.tif"

    def export(self, networks: list[str]) -> None:
        """Write the model folders that are missing."""
        missing = [n for n in networks if not (self.models / f"{n}-torchscript").exists()]
        if missing:
            script = [sys.executable, "-W", "ignore", str(HERE / "networks.py"), str(self.models)]
            subprocess.run([*script, *missing], check=True)

    def run(self, cell: Cell, image: Path, labels: Path) -> dict[str, Any]:
        """One contender, once. Raises: RuntimeError with the reason where it gives no result."""
        way = WAYS[cell.name]
        side, stride = way.windows(cell.network)
        command = [sys.executable, "-W", "ignore", str(HERE / "contenders.py"), way.contender]
        command += [str(image), str(labels), "--network", cell.network]
        command += ["--models", str(self.models), "--mode", way.mode, "--batch", str(BATCH)]
        command += ["--size", str(side), "--stride", str(stride), *way.extra]
        found = watched(command, self.wanted.limit, _environment(self.wanted.pages))
        return dict(json.loads(found.splitlines()[-1]))

    def refused(self, cell: Cell) -> str:
        """Why a cell is not worth trying, by what the contender needed for a smaller picture."""
        known = [
            c
            for c in [*self.before(), *self.cells]
            if (c.name, c.network) == (cell.name, cell.network) and c.pixels < cell.pixels
        ]
        if known and known[-1].reason:
            return f"not tried: at {_named(known[-1].size)} {known[-1].reason}"
        if not known:
            return ""
        before = known[-1]
        memory = psutil.virtual_memory().total * MEMORY_SHARE
        need = before.bytes_per_pixel * cell.pixels
        if need > memory and not WAYS[cell.name].streams:
            return (
                f"not tried: {before.bytes_per_pixel:.0f} bytes per pixel would be "
                f"{need / 2**30:.1f} GiB, more than {memory / 2**30:.1f} GiB, "
                f"{MEMORY_SHARE:.0%} of the memory"
            )
        seconds = statistics.median(before.seconds) * cell.pixels / before.pixels
        if seconds > self.wanted.limit:
            return f"not tried: it would take about {seconds:.0f} s, not {self.wanted.limit:g}"
        return ""

    def fill(self, size: tuple[int, int], network: str) -> None:
        """All contenders over one picture with one network, in turn."""
        cells = [Cell(size, network, name) for name in self.wanted.contenders]
        for cell in cells:
            cell.reason = self.refused(cell)
        image = self.image(size)
        for turn in range(self.wanted.repeats):
            for cell in cells:
                if not cell.reason:
                    self.add(cell, image, turn)
        if size == self.wanted.measured:
            for cell in cells:
                if cell.seconds and not cell.reason:
                    self.judge(cell)
        self.cells += cells
        self.write()

    def add(self, cell: Cell, image: Path, turn: int) -> None:
        """One more figure for a cell, or the reason why there is none."""
        try:
            found = self.run(cell, image, self.labels(cell))
        except RuntimeError as reason:
            cell.reason = str(reason)
            _say(f"{_named(cell.size)} {cell.network} {cell.name}: {cell.reason}")
            return
        cell.seconds.append(found["seconds"])
        cell.peaks.append(found["peak_mib"])
        _say(
            f"{_named(cell.size)} {cell.network} {cell.name} {turn + 1}: "
            f"{cell.pixels / 1e6 / found['seconds']:.2f} Mpx/s, {found['peak_mib']:.0f} MiB"
        )

    def judge(self, cell: Cell) -> None:
        """Agreement with the network, seams, and whether the map stays when the windows move."""
        labels, way = self.labels(cell), WAYS[cell.name]
        truth = self.labels(Cell(cell.size, cell.network, TRUTH))
        if truth.exists():
            cell.quality["agreement"] = round(agreement(labels, truth), 6)
        if way.blind:
            return
        side, stride = way.windows(cell.network)
        try:
            half = self.labels(cell, "-half")
            self.run(cell, self.image(cell.size, stride // 2, keep_corner=True), half)
            moved = {shift: self.labels(cell, f"-moved-{shift}") for shift in SHIFTS}
            for shift, path in moved.items():
                self.run(cell, self.image(cell.size, shift), path)
        except RuntimeError as reason:
            cell.quality["reason"] = f"the shifted pictures failed: {reason}"
            return
        start = _first_lines(stride) if way.contender == "mapper" else (0, 0)
        edges = (0, side % stride) if way.mode == "blend" else (0,)
        seams = seam_index(labels, half, stride, start=start, edges=edges)
        cell.quality["seam_index"] = round(seams, 4)
        for shift, path in moved.items():
            stays = translation_consistency(labels, path, shift)
            cell.quality[f"translation_consistency_{shift}"] = round(stays, 6)

    def before(self) -> list[Cell]:
        """Cells of an earlier run, smaller pictures first."""
        cells = [
            Cell(
                size=(row["rows"], row["columns"]),
                network=row["network"],
                name=row["contender"],
                seconds=row.get("seconds", []),
                peaks=[row["peak_mib"]] if "peak_mib" in row else [],
                reason=row.get("reason", ""),
            )
            for row in self.kept()
        ]
        return sorted(cells, key=lambda c: c.pixels)

    def kept(self) -> list[dict[str, Any]]:
        """Cells of an earlier run that this one does not measure again."""
        if not self.wanted.append or not self.wanted.out.exists():
            return []
        mine = [(_named(c.size), c.network, c.name) for c in self.cells]
        before = json.loads(self.wanted.out.read_text(encoding="utf-8"))["cells"]
        return [
            row
            for row in before
            if (f"{row['rows']}x{row['columns']}", row["network"], row["contender"]) not in mine
        ]

    def write(self) -> None:
        """Everything so far."""
        wanted = self.wanted
        result = {
            "what": "pictures to label maps; seconds from opening the one to closing the other",
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "versions": versions(PACKAGES),
            "options": {
                "repeats": wanted.repeats,
                "limit_s": wanted.limit,
                "batch": BATCH,
                "pages": wanted.pages,
                "quality_at": _named(wanted.measured),
            },
            "contenders": list(WAYS),
            "cells": self.kept() + [cell.to_dict() for cell in self.cells],
        }
        wanted.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _environment(pages: str) -> dict[str, str]:
    """The same for all contenders: whether torch asks the kernel for large pages."""
    return os.environ | ({"THP_MEM_ALLOC_ENABLE": "1"} if pages == "huge" else {})


def _first_lines(stride: int) -> tuple[int, int]:
    """Row and column of the picture where the first lines of mapper's lattice run."""
    row, col = round(-TOP / RESOLUTION), round(LEFT / RESOLUTION)
    return -row % stride, -col % stride


def _named(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _size(text: str) -> tuple[int, int]:
    height, width = (int(n) for n in text.split("x"))
    return height, width


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run what is asked for, smaller pictures first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", type=_size, default=[_size(s) for s in SIZES])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--contenders", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=900, help="seconds for one run")
    parser.add_argument(
        "--measured", type=_size, default=_size(SIZES[0]), help="size at which maps are compared"
    )
    parser.add_argument(
        "--pages",
        choices=("huge", "default"),
        default="huge",
        help="huge: let torch use large pages, without which new memory can cost it most of its "
        "time on a virtual machine",
    )
    parser.add_argument(
        "--append", action="store_true", help="keep the cells that are not measured again"
    )
    parser.add_argument("--work", type=Path, default=Path("build/bench-inference"))
    parser.add_argument("--out", type=Path, default=HERE / "inference.json")
    bench = Bench(parser.parse_args())
    bench.export(bench.wanted.networks)
    for size in sorted(bench.wanted.sizes, key=lambda s: s[0] * s[1]):
        for network in bench.wanted.networks:
            bench.fill(size, network)
    _say(f"{bench.wanted.out} is written")


if __name__ == "__main__":
    main()
