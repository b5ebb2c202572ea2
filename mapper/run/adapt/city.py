"""One city's own model: adapted, exported, and what the map changed by it.

```
OUT/cities/<slug>/target.json   the version whose imagery it is adapted to, for good
OUT/cities/<slug>/adapt/        the adaptation, see `mapper.training.adapt.driver`
OUT/cities/<slug>/model/        the model folder
OUT/cities/<slug>/adapted.json  how it ended; what is there is not done again
```
"""

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio

from mapper.classes import ClassTable
from mapper.errors import MapperError, StoreError, UsageError
from mapper.events import Event, Listener, ignore
from mapper.recipe import Recipe
from mapper.recipe.settings import train_section
from mapper.run.adapt.target import target_of
from mapper.run.layout import Version
from mapper.run.lock import hold_folder
from mapper.run.publish import read_item
from mapper.store.files import write_json
from mapper.training.trainer import Device, first_process
from mapper.transport.address import redact

if TYPE_CHECKING:
    from mapper.training.adapt.driver import AdaptReport

logger = logging.getLogger(__name__)

_TARGET = "target.json"
_ADAPTED = "adapted.json"
_ADAPTATION = "adapt"
_MODEL = "model"
_ONE_AT_A_TIME = threading.Lock()
"""PyTorch has one generator of random numbers for all threads of a process."""


@dataclass(slots=True, kw_only=True)
class CityAdapted:
    """How a city ended."""

    slug: str
    state: str = "failed"
    """`adapted`, `finished` before, `not mapped` or `failed`."""
    reason: str = ""
    method: str = ""
    epoch: int = -1
    """The chosen one, from 0."""
    epochs: int = 0
    chosen_by: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    megapixels_per_second: float = 0.0
    memory_gib: float = 0.0
    learned: list[str] = field(default_factory=list)
    """Keys of the versions whose imagery its model is adapted to."""
    model: str = ""
    """Folder of its model, relative to OUT."""
    map: str = ""
    """Folder of the map by it, relative to the run's."""
    changed: float | None = None
    """Share of the pixels with a class in both maps that have another one by this model."""

    @property
    def good(self) -> bool:
        """True where nothing went wrong."""
        return self.state in {"adapted", "finished"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CityWork:
    """One adaptation, as plain values that a worker can be sent."""

    slug: str
    """Of the city; of all of them, what their model is called."""
    folder: Path
    """What is kept of it."""
    recipe: Recipe
    source: Path
    start: Path | None
    versions: tuple[Version, ...]
    """Whose imagery it is adapted to."""
    out: Path
    """Of the whole adaptation."""
    device: Device = "auto"
    devices: int = 1
    workers: int = 0
    """Processes that read patches; none below Dask, whose workers may have no children."""
    threads: int | None = None
    """Of PyTorch; None leaves it as it is."""

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.folder / _MODEL

    @property
    def finished(self) -> bool:
        """True where there is nothing to do."""
        return self.model.is_dir() and (self.folder / _ADAPTED).is_file()


def adapt_city(work: CityWork, listener: Listener = ignore) -> CityAdapted:
    """Adapt and export, or say at once that it is done.

    A further process of one model learns along, and leaves the folder to the first.

    Raises: MapperError; LockedError where another process works at the city.
    """
    if not first_process():
        return _told(work, _learn(work, ignore))
    with hold_folder(work.folder):
        known = read_adapted(work.folder)
        if known is not None and work.finished:
            return replace(known, state="finished")
        report = _learn(work, listener)
        export_once(report.out, work.model, f"{work.recipe.name}-{work.slug}")
        done = _told(work, report)
        keep_adapted(work.folder, done)
        return done


def _learn(work: CityWork, listener: Listener) -> "AdaptReport":
    from mapper.training.adapt.driver import AdaptOptions, adapt_model
    from mapper.training.networks.build import cell_pixels

    train = train_section(work.recipe)
    options = AdaptOptions(
        recipe=work.recipe,
        source=work.source,
        target=target_of(work.versions, train.bands, train.required, cell_pixels(train)),
        out=work.folder / _ADAPTATION,
        start=work.start,
        workers=work.workers,
        device=work.device,
        devices=work.devices,
    )
    return adapt_model(options, lambda event: listener(replace(event, city=work.slug)))


def export_once(training: Path, folder: Path, name: str) -> None:
    """A model folder of trained weights, where there is none. Raises: ModelError, StoreError."""
    from mapper.training.export import ExportOptions, export_model
    from mapper.training.weights import load_weights

    if not folder.is_dir():
        export_model(load_weights(training), ExportOptions(out=folder, name=name))


def adapt_task(work: CityWork) -> CityAdapted:
    """What a Dask worker calls: never raises, so that one city stops no other."""
    with _ONE_AT_A_TIME:
        if work.threads is not None:
            import torch

            torch.set_num_threads(work.threads)
        return attempt(work)


def attempt(work: CityWork, listener: Listener = ignore) -> CityAdapted:
    """`adapt_city`, with any failure as its result."""
    try:
        return adapt_city(work, listener)
    # one city's failure, whatever PyTorch calls it, must not take the others with it
    except Exception as reason:
        return CityAdapted(slug=work.slug, state="failed", reason=told_reason(work.slug, reason))


def told_reason(slug: str, error: Exception) -> str:
    """Why a city failed, in a line; what nobody foresaw goes to the log with its traceback."""
    if not isinstance(error, MapperError):
        logger.error("%s failed", slug, exc_info=error)
    return _reason_of(error)


def _reason_of(error: BaseException) -> str:
    """One line, without secrets."""
    if isinstance(error, MapperError):
        return redact(str(error))
    lines = redact(f"{type(error).__name__}: {error}").splitlines()
    return lines[0]


def _told(work: CityWork, report: "AdaptReport") -> CityAdapted:
    return CityAdapted(
        slug=work.slug,
        state="adapted",
        method=report.method,
        epoch=report.epoch,
        epochs=report.epochs,
        chosen_by=report.chosen_by,
        scores=report.scores,
        seconds=round(report.seconds, 1),
        megapixels_per_second=report.megapixels_per_second,
        memory_gib=report.memory_gib,
        learned=sorted(version.key for version in work.versions),
        model=str(work.model.relative_to(work.out)),
    )


# what is kept ------------------------------------------------------------------------------


def keep_adapted(folder: Path, done: CityAdapted) -> None:
    """Write down how a city ended."""
    write_json(folder / _ADAPTED, asdict(done))


def read_adapted(folder: Path) -> CityAdapted | None:
    """How a city ended; None where it did not yet. Raises: StoreError where that is damaged."""
    content = _read(folder / _ADAPTED)
    try:
        return None if content is None else CityAdapted(**content)
    except TypeError as reason:
        raise StoreError(f"{folder / _ADAPTED} is damaged ({reason}); delete it") from reason


def pinned(folder: Path, latest: Version) -> Version:
    """The version that a city is adapted to: the latest when it was begun, the same ever after.

    Maps by its own model are versions too, and an adaptation goes on with what it began.

    Raises: UsageError where the folder was begun for another run.
    """
    kept = _read(folder / _TARGET)
    if kept is None:
        state = latest.state() or {}
        write_json(
            folder / _TARGET,
            {"product": latest.product, "version": latest.number, "token": state.get("token")},
        )
        return latest
    version = replace(latest, product=str(kept["product"]), number=int(kept["version"]))
    if version.product != latest.product or (version.state() or {}).get("token") != kept["token"]:
        raise UsageError(
            f"{folder} was begun for {version.key} of another run, or that version is gone; name "
            "another --out"
        )
    return version


def is_pinned(folder: Path) -> bool:
    """True where it is known what a city is adapted to."""
    return (folder / _TARGET).is_file()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError as reason:
        raise StoreError(f"{path} is damaged ({reason}); delete it and run again") from reason


# side by side ------------------------------------------------------------------------------


def adapt_side_by_side(
    works: Sequence[CityWork], client: Any, listener: Listener
) -> Iterator[CityAdapted]:
    """One Dask task a city, in the order in which they end."""
    from distributed import as_completed

    futures = {
        client.submit(adapt_task, work, key=f"adapt-{work.slug}-{number}", pure=False): work
        for number, work in enumerate(works)
    }
    for future in as_completed(list(futures), loop=client.loop):
        work = futures[future]
        if future.status == "finished":
            done = future.result()
        else:
            done = CityAdapted(slug=work.slug, reason=_lost(future.exception()))
        future.release()
        tell(done, listener)
        yield done


def adapt_in_turn(works: Sequence[CityWork], listener: Listener) -> Iterator[CityAdapted]:
    """One after the other, in this process."""
    for work in works:
        done = attempt(work, listener)
        tell(done, listener)
        yield done


def tell(done: CityAdapted, listener: Listener) -> None:
    """Say how a city's adaptation ended."""
    message = f"{done.state} by {done.method}, epoch {done.epoch}" if done.good else done.reason
    state = "done" if done.good else "failed"
    listener(Event(kind="city", stage="adapt", state=state, city=done.slug, message=message))


def _lost(error: BaseException | None) -> str:
    if type(error).__name__ == "KilledWorker":
        return "its worker died several times, out of memory perhaps; use fewer workers"
    return _reason_of(error) if error else "its task was cancelled; run again"


# what changed ------------------------------------------------------------------------------


def changed_share(before: Version, after: Version) -> float | None:
    """Share of the pixels with a class in both maps whose class is another one by name.

    None where there is nothing to compare: other classes, another extent, no pixel in common.
    """
    tables = [_table(before), _table(after)]
    names = [{c.name: c.value for c in table.classes} for table in tables]
    if names[0].keys() != names[1].keys():
        return None
    lookup = np.full(256, -1)
    for name, value in names[0].items():
        lookup[value] = names[1][name]
    known = np.isin(np.arange(256), list(names[1].values()))
    both = other = 0
    paths = [v.product_folder / "classes.tif" for v in (before, after)]
    with rasterio.open(paths[0]) as old, rasterio.open(paths[1]) as new:
        if (old.crs, old.transform, old.shape) != (new.crs, new.transform, new.shape):
            return None
        for _, window in new.block_windows(1):
            was, now = lookup[old.read(1, window=window)], new.read(1, window=window)
            mapped = (was >= 0) & known[now]
            both += int(mapped.sum())
            other += int((mapped & (was != now)).sum())
    return round(other / both, 6) if both else None


def _table(version: Version) -> ClassTable:
    item: dict[str, Any] = read_item(version)
    return ClassTable.from_stac(item["assets"]["classes"]["classification:classes"])
