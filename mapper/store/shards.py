"""Immutable shards: a tile of an array, written once under the hash of what made it.

`tiles/<tile key>/<step>/<hash>/<array>` is a Zarr v3 array of one shard, so each opens by
itself, and the shard's bytes are the very bytes that a city's group links to. A directory
appears under its final name only when it is complete; whoever comes second is thrown away.
"""

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from mapper.area.grid import PixelBox, TileKey
from mapper.errors import StoreError
from mapper.store.files import sha256_of
from mapper.store.template import ArrayTemplate

_FOLDER_PARTS = 7
"""tiles, system, resolution, size, place, step, hash; `str(TileKey)` is four of them."""
_FOLDERS = "/".join(["tiles", *["*"] * (_FOLDER_PARTS - 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One written shard."""

    array: str
    path: str
    """Of the shard's bytes, relative to the store's root."""
    size: int
    sha256: str


def shard_directory(root: Path, key: TileKey, step: str, digest: str) -> Path:
    """Where the arrays of one step for one tile lie."""
    return root / "tiles" / str(key) / step / digest


def shard_folder_of(path: str) -> str:
    """Folder of one step for one tile, of the relative path of any file in it."""
    return "/".join(path.split("/")[:_FOLDER_PARTS])


def all_shards(root: Path) -> Iterator[Path]:
    """Folders of complete shards, in order."""
    yield from sorted(p for p in root.glob(_FOLDERS) if not p.name.startswith("."))


def unfinished_shards(root: Path) -> Iterator[Path]:
    """Attempts that were never renamed into place, in order."""
    yield from sorted(p for p in root.glob(_FOLDERS) if p.name.startswith("."))


def array_options(template: ArrayTemplate, tile: int) -> dict[str, object]:
    """Chunks, shard and codecs of a template: the same for a single shard and a city's array."""
    chunk = template.chunk
    width = max(1, np.dtype(template.dtype).itemsize)
    return {
        "chunks": chunk,
        "shards": template.shape(tile, tile),
        "dtype": template.dtype,
        "fill_value": np.dtype(template.dtype).type(template.fill).item(),
        "compressors": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=width),
        "dimension_names": template.dimensions,
        "attributes": dict(template.attributes),
    }


def write_shards(
    root: Path,
    key: TileKey,
    step: str,
    digest: str,
    arrays: Iterable[tuple[ArrayTemplate, np.ndarray]],
) -> list[Shard]:
    """Write whole shards of one step for one tile; the first complete writer wins.

    Raises: StoreError where the disk refuses (full, read-only).
    """
    final = shard_directory(root, key, step, digest)
    attempt = final.with_name(f".{digest}.{uuid.uuid4().hex}")
    names = []
    try:
        attempt.mkdir(parents=True)
        for template, values in arrays:
            names.append(template.name)
            _write_array(attempt / template.name, template, values, key.tile)
        _put_in_place(attempt, final)
    except OSError as reason:
        raise StoreError(
            f"{final} could not be written ({reason}); free space or mend the disk, "
            "then run again: finished steps are kept"
        ) from reason
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return [_describe(root, final / name, name) for name in names]


def _put_in_place(attempt: Path, final: Path) -> None:
    """Rename a complete attempt; one that is there already stays, unless it is not the same."""
    for _ in range(3):
        try:
            os.rename(attempt, final)
        except OSError:
            if not final.is_dir():
                raise
            if _checksums(final) == _checksums(attempt):
                return
            # damaged, or made without a scene that can be read by now; links to it stay good
            aside = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
            os.rename(final, aside)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            return
    raise OSError(f"{final.name} is being written by others")


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every shard below a folder."""
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in sorted(folder.glob("*/c/**/0"))
        if path.is_file()
    }


def _write_array(path: Path, template: ArrayTemplate, values: np.ndarray, tile: int) -> None:
    """Write one array of one shard, empty chunks too, and flush it to the disk."""
    expected = template.shape(tile, tile)
    if values.shape != expected:
        raise ValueError(f"{template.name} has shape {values.shape}, its template {expected}")
    # the array's own setting: zarr's are those of the whole process, threads included
    own: Any = {"write_empty_chunks": True}
    options: dict[str, Any] = array_options(template, tile)
    array = zarr.create_array(store=path, shape=expected, config=own, **options)
    array[...] = values
    with open(shard_file(path, len(expected)), "rb") as file:
        os.fsync(file.fileno())


def shard_file(array: Path, dimensions: int) -> Path:
    """The bytes of an array of one shard."""
    return array.joinpath("c", *["0"] * dimensions)


def _describe(root: Path, array: Path, name: str) -> Shard:
    """Size and checksum of a shard on disk."""
    file = next(p for p in sorted(array.glob("c/**/0")) if p.is_file())
    return Shard(
        array=name,
        path=str(file.relative_to(root)),
        size=file.stat().st_size,
        sha256=sha256_of(file),
    )


def read_box(
    arrays: Mapping[TileKey, Path], template: ArrayTemplate, pixels: PixelBox, tile: int
) -> np.ndarray:
    """Read a lattice box across shards; ground without a shard has the template's fill.

    Args:
        arrays: directory of the array (the one that holds `zarr.json`) of each tile.
        template: what the arrays are.
        pixels: the box.
        tile: side of a tile in pixels.

    Returns: `(band, y, x)` or `(y, x)` in the template's dtype.

    Raises: StoreError where a shard is listed and cannot be read.
    """
    values = template.empty(*pixels.shape)
    for key, path in arrays.items():
        common = key.box.intersect(pixels)
        if common.empty:
            continue
        target, source = common.slices_in(pixels), common.slices_in(key.box)
        try:
            # zarr reads a missing shard as fill; here it is a loss
            os.stat(shard_file(path, len(template.dimensions)))
            part = zarr.open_array(store=path, mode="r")[(..., *source)]
        except (OSError, ValueError, KeyError, RuntimeError) as reason:
            raise StoreError(
                f"shard {path} cannot be read ({reason}); delete its folder and run again"
            ) from reason
        values[(..., *target)] = part
    return values
