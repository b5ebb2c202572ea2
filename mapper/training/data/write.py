"""A set of samples on disk: patches as GeoTIFFs or one Zarr, their STAC, and an index.

```
OUT/images/<id>.tif <id>.json collection.json   OUT/labels/ the same   OUT/catalog.json
OUT/samples.zarr     in place of the GeoTIFFs
OUT/samples.json     the index, written last: a set without it is not whole
```
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
import rasterio
import zarr
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from zarr.codecs import BloscCodec

from mapper.errors import StoreError, UsageError
from mapper.product.item import file_facts
from mapper.store.files import write_json
from mapper.training.data import stac
from mapper.training.data.labelled import IGNORED
from mapper.training.data.samples import INDEX
from mapper.training.data.stac import Sample, SetFacts

STACK = "samples.zarr"
Format = Literal["geotiff", "zarr"]
_BLOCK = 256


class _Store(Protocol):
    """Where pixels go."""

    def add(self, sample: Sample, image: np.ndarray, label: np.ndarray) -> dict[str, Any]:
        """Write a patch; gives its fields in the index."""
        ...

    def assets(self, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The asset of the image, then that of the label, as their items have them."""
        ...

    def finish(self, count: int) -> None:
        """Nothing more comes."""
        ...


def check_new(out: Path) -> None:
    """Raise UsageError unless a folder is free to write a set in."""
    if out.is_file():
        raise UsageError(f"{out} is a file; name a folder for --out")
    if out.is_dir() and any(out.iterdir()):
        rest = "" if (out / INDEX).exists() else f" (without {INDEX}: what a killed command left)"
        raise UsageError(f"{out} is not empty{rest}; delete it or choose another --out")


class SetWriter:
    """Writes samples into a new or empty folder, which holds nothing again if that fails.

    Raises: UsageError where the folder holds something; StoreError where the disk refuses.
    """

    def __init__(self, out: Path, facts: SetFacts, form: Format, most: int) -> None:
        """For a folder.

        Args:
            out: the folder.
            facts: of the set.
            form: of the pixels.
            most: samples that can come.
        """
        check_new(out)
        self._out, self._facts, self._form = out, facts, form
        self._most = most
        self._entries: list[dict[str, Any]] = []
        self._boxes: dict[str, stac.Bbox] = {}
        self._store: _Store | None = None
        self._made = not out.exists()

    def __enter__(self) -> "SetWriter":
        """Begin the set."""
        with _told(self._out):
            for kind in stac.KINDS:
                (self._out / kind).mkdir(parents=True)
            if self._form == "zarr":
                self._store = _Stack(self._out, self._facts, self._most)
            else:
                self._store = _Rasters(self._out, self._facts)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take everything away again unless the set was finished."""
        if (self._out / INDEX).exists():
            return
        for path in self._out.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if self._made:
            self._out.rmdir()

    def add(self, sample: Sample, image: np.ndarray, label: np.ndarray) -> None:
        """Write one sample.

        Args:
            sample: the patch.
            image: `(band, y, x)` float32 in physical units, NaN where there are no data.
            label: `(y, x)` uint8 class values, IGNORED where nothing is known.
        """
        shape = (self._facts.size, self._facts.size)
        if image.shape != (len(self._facts.bands), *shape) or label.shape != shape:
            raise ValueError(f"{sample.id} is {image.shape} with a label of {label.shape}")
        assert self._store is not None  # noqa: S101
        with _told(self._out):
            files = self._store.add(sample, image, label)
            image_asset, label_asset = self._store.assets(files)
        item = stac.image_item(sample, self._facts, image_asset)
        write_json(self._out / "images" / f"{sample.id}.json", item)
        labels = stac.label_item(sample, self._facts, label_asset)
        write_json(self._out / "labels" / f"{sample.id}.json", labels)
        self._boxes[sample.id] = stac.bbox_of(item)
        self._entries.append(_entry(sample) | files)

    def finish(self) -> None:
        """Write collections, catalog and, last, the index."""
        assert self._store is not None  # noqa: S101
        with _told(self._out):
            self._store.finish(len(self._entries))
        for kind in stac.KINDS:
            content = stac.collection(kind, self._facts, self._boxes)
            write_json(self._out / kind / "collection.json", content)
        write_json(self._out / stac.CATALOG, stac.catalog(self._facts, len(self._entries)))
        write_json(
            self._out / INDEX,
            {
                "format": self._form,
                "bands": list(self._facts.bands),
                "classes": self._facts.classes.to_stac(),
                "samples": self._entries,
                "license": self._facts.license,
                "run": dict(self._facts.run),
            },
        )


def _entry(sample: Sample) -> dict[str, Any]:
    """A sample as the index lists it, apart from its files."""
    return {
        "id": sample.id,
        "group": sample.group,
        "place": list(sample.place),
        "epsg": sample.epsg,
        "shape": list(sample.shape),
        "stratum": sample.stratum,
        "pixels": dict(sample.pixels),
        **sample.more,
    }


@contextmanager
def _told(out: Path) -> Iterator[None]:
    try:
        yield
    except (RasterioError, CPLE_BaseError, SystemError, OSError) as reason:
        raise StoreError(
            f"samples could not be written to {out} ({reason}); free space and run again"
        ) from reason


class _Rasters:
    """A GeoTIFF for each image and each label."""

    def __init__(self, out: Path, facts: SetFacts) -> None:
        self._out, self._facts = out, facts

    def add(self, sample: Sample, image: np.ndarray, label: np.ndarray) -> dict[str, Any]:
        files = {"image": f"images/{sample.id}.tif", "label": f"labels/{sample.id}.tif"}
        image_profile = {"dtype": "float32", "nodata": float("nan"), "predictor": 3}
        with self._raster(files["image"], sample, image_profile | {"count": len(image)}) as target:
            target.descriptions = self._facts.bands
            target.write(image)
        classes = self._facts.classes
        with self._raster(
            files["label"], sample, {"dtype": "uint8", "nodata": IGNORED, "count": 1}
        ) as target:
            target.write_colormap(1, classes.colormap())
            target.update_tags(1, **{f"CLASS_{c.value}": c.name for c in classes.classes})
            target.set_band_description(1, "class")
            target.write(label, 1)
        return files

    def assets(self, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for key in ("image", "label"):
            path = self._out / entry[key]
            yield {"href": f"./{path.name}", **file_facts(path)}

    def finish(self, count: int) -> None:
        """Every file is whole already."""

    @contextmanager
    def _raster(self, name: str, sample: Sample, more: Mapping[str, Any]) -> Iterator[Any]:
        """A GeoTIFF that appears when it is whole and could be read back."""
        path = self._out / name
        attempt = path.with_name(f".{path.name}")
        height, width = sample.shape
        block = min(_BLOCK, -(-max(height, width) // 16) * 16)
        profile = {
            "driver": "GTiff",
            "height": height,
            "width": width,
            "crs": f"EPSG:{sample.epsg}",
            "transform": sample.transform,
            "tiled": True,
            "blockxsize": block,
            "blockysize": block,
            "interleave": "band",
            "compress": "DEFLATE",
        }
        with rasterio.open(attempt, "w", **profile, **more) as target:
            yield target
        with rasterio.open(attempt) as written:
            written.read()
        os.replace(attempt, path)


class _Stack:
    """One Zarr v3 group: `image` (sample, band, y, x) and `label` (sample, y, x)."""

    def __init__(self, out: Path, facts: SetFacts, most: int) -> None:
        self._out = out
        # the index must not promise what an empty chunk leaves out
        self._config = {"array.write_empty_chunks": True, "threading.max_workers": 1}
        group = zarr.open_group(store=out / STACK, mode="w", zarr_format=3)
        group.attrs.update({"bands": list(facts.bands), "classes": facts.classes.to_stac()})
        square, count = (facts.size, facts.size), len(facts.bands)
        self._image = group.create_array(
            "image",
            shape=(most, count, *square),
            chunks=(1, count, *square),
            dtype="float32",
            fill_value=float("nan"),
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=4),
            dimension_names=("sample", "band", "y", "x"),
        )
        self._label = group.create_array(
            "label",
            shape=(most, *square),
            chunks=(1, *square),
            dtype="uint8",
            fill_value=IGNORED,
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=1),
            dimension_names=("sample", "y", "x"),
            attributes={"_FillValue": IGNORED, **facts.classes.cf_attributes()},
        )
        self._group = group
        self._places: list[tuple[int, list[float]]] = []

    def add(self, sample: Sample, image: np.ndarray, label: np.ndarray) -> dict[str, Any]:
        index = len(self._places)
        with zarr.config.set(self._config):
            self._image[index] = image
            self._label[index] = label
        self._places.append((sample.epsg, list(sample.transform)[:6]))
        return {"image": STACK, "label": STACK, "index": index}

    def assets(self, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for key in ("image", "label"):
            where = {"mapper:array": key, "mapper:index": entry["index"]}
            yield {"href": f"../{STACK}", **where}

    def finish(self, count: int) -> None:
        """Cut off what was not needed, and say where each sample lies."""
        self._image.resize((count, *self._image.shape[1:]))
        self._label.resize((count, *self._label.shape[1:]))
        named: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {
            "epsg": (np.array([epsg for epsg, _ in self._places], np.int32), ("sample",)),
            "transform": (np.array([t for _, t in self._places]), ("sample", "coefficient")),
        }
        for name, (values, dimensions) in named.items():
            self._group.create_array(
                name, data=values, chunks=values.shape, dimension_names=dimensions
            )
