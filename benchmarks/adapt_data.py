"""Prepares the tasks of the adaptation benchmark: labelled source, target with labels apart.

    python benchmarks/adapt_data.py --tasks sim-style --work build/adapt/data

Every task becomes a folder in layout `images`: `source/images`, `source/labels`,
`target/images`, `target/labels`, one-band labels with 255 for what is not scored, `task.json`
and a quicklook. A target's labels are for scores and for the oracle alone; names of its images
begin with the half that they belong to. Which class becomes which is in `adapt_classes.yaml`.
Real tasks need MAPPER_TEST_ARCHIVE, the folder of real rasters.
"""

import argparse
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import adapt_real as real
import adapt_towns as towns
from adapt_pieces import (
    HALVES,
    Domain,
    Harmony,
    halves,
    shares,
    write_piece,
    write_quicklook,
)
from rasterio.errors import NotGeoreferencedWarning

from mapper.errors import UsageError
from mapper.store.files import write_json

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A pair of domains."""

    harmony: str
    """Its section in `adapt_classes.yaml`."""
    make: Callable[[Path], tuple[Domain, Domain]]
    """From the archive, or the folder of simulated worlds, to source and target."""
    simulated: bool = False


TASKS: Mapping[str, Task] = {
    "dubai-valencia": Task(harmony="dubai-valencia", make=partial(real.dubai_valencia, factor=1)),
    "dubai-banepa": Task(harmony="dubai-banepa", make=partial(real.dubai_banepa, factor=4)),
    "naip-trees": Task(harmony="naip-trees", make=real.naip_trees),
    "sim-style": Task(
        harmony="sim-style", make=partial(towns.sim_style, target=towns.DRY), simulated=True
    ),
    "sim-subpixel": Task(
        harmony="sim-subpixel",
        make=partial(towns.sim_subpixel, target=towns.NORTHERN),
        simulated=True,
    ),
}
VARIANTS: Mapping[str, Task] = {
    "dubai-valencia-1m": Task(
        harmony="dubai-valencia", make=partial(real.dubai_valencia, factor=2)
    ),
    "dubai-banepa-1m": Task(harmony="dubai-banepa", make=partial(real.dubai_banepa, factor=8)),
}
"""Tasks with the target at about the pixel size that the source really has."""
_ALL = {**TASKS, **VARIANTS}


def main() -> int:
    """Prepare what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", choices=list(_ALL), default=list(TASKS))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "adapt" / "data")
    wanted = parser.parse_args()
    named = os.environ.get("MAPPER_TEST_ARCHIVE")
    archive = Path(named) if named else None
    for task in wanted.tasks:
        try:
            print(prepare(task, wanted.work, archive))
        except UsageError as reason:
            sys.exit(str(reason))
    return 0


def prepare(task: str, work: Path, archive: Path | None) -> Path:
    """The folder of a task, made where it is not there yet; whole or not at all.

    Args:
        task: one of `TASKS` or `VARIANTS`.
        work: folder of all tasks, and of the simulated worlds.
        archive: real rasters; None does for simulated tasks.

    Raises: UsageError for a task that is unknown, or needs an archive that is not given.
    """
    if task not in _ALL:
        raise UsageError(f"there is no task {task!r}; choose among {', '.join(_ALL)}")
    folder, todo = work / task, _ALL[task]
    if (folder / "task.json").exists():
        return folder
    if not todo.simulated and archive is None:
        raise UsageError(f"task {task} needs real rasters; name them in MAPPER_TEST_ARCHIVE")
    root = work / "worlds" if todo.simulated or archive is None else archive
    with warnings.catch_warnings():
        # Dubai's images have no place
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return _written(task, folder, *todo.make(root))


def _written(task: str, folder: Path, source: Domain, target: Domain) -> Path:
    harmony = Harmony.of(_ALL[task].harmony)
    half = halves(target.pieces, harmony.classes)
    target = replace(
        target,
        pieces=[replace(p, name=f"{half[p.name]}-{p.name}") for p in target.pieces],
    )
    attempt = folder.with_name(f".{task}.{os.getpid()}")
    try:
        for name, domain in (("source", source), ("target", target)):
            for piece in domain.pieces:
                write_piece(piece, attempt / name, domain.nodata)
        write_quicklook((source, target), harmony.classes, attempt / "quicklook.png")
        write_json(attempt / "task.json", _facts(task, source, target))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(attempt, folder)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return folder


def _facts(task: str, source: Domain, target: Domain) -> dict[str, Any]:
    """Content of `task.json`."""
    todo = _ALL[task]
    harmony = Harmony.of(todo.harmony)
    sides = {h: [p for p in target.pieces if p.name.startswith(f"{h}-")] for h in HALVES}
    return {
        "task": task,
        "title": harmony.title,
        "simulated": todo.simulated,
        "bands": list(harmony.bands),
        "scale": harmony.scale,
        "classes": [entry.model_dump() for entry in harmony.classes],
        "ignored": 255,
        "resolution": {"source": source.resolution, "target": target.resolution},
        "source": _side(source, source.pieces, harmony),
        "target": {h: sorted(p.name for p in side) for h, side in sides.items()}
        | {"title": target.title, "license": target.license}
        | {"halves": {h: _counts(side, harmony) for h, side in sides.items()}},
        "notes": [*source.notes, *target.notes],
    }


def _side(domain: Domain, pieces: Any, harmony: Harmony) -> dict[str, Any]:
    names = sorted(piece.name for piece in pieces)
    about: dict[str, Any] = {"title": domain.title, "license": domain.license, "names": names}
    return about | _counts(pieces, harmony)


def _counts(pieces: Any, harmony: Harmony) -> dict[str, Any]:
    return {
        "images": len(pieces),
        "pixels": sum(piece.label.size for piece in pieces),
        "shares": shares(pieces, harmony.classes),
    }


if __name__ == "__main__":
    sys.exit(main())
