"""Image files as a model's input: checked by their headers, then read row by row."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from mapper.area.grid import PixelBox
from mapper.errors import ImageError, UsageError
from mapper.inference.card import ModelCard
from mapper.inference.coding import Coding, Layer, holds
from mapper.inference.rows import Source, Stored

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".jpg", ".jpeg", ".png", ".webp")
CHIPS = ("PNG", "JPEG", "WEBP")
"""Drivers of images that are looked at, not georeferenced."""
_LEAST_ROWS = 256
_ROOMIER: dict[str, tuple[str, float]] = {
    "uint8": ("uint16", 65535),
    "int8": ("int16", -32768),
    "uint16": ("int32", -1),
    "int16": ("int32", -(1 << 31)),
}
"""Types with a value to spare for what is masked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlace:
    """Where an image's pixels lie, on a lattice that its neighbours share."""

    crs: Any
    transform: Affine
    row0: int
    col0: int

    def transform_of(self, pixels: PixelBox) -> Affine:
        """See `mapper.product.cog.Placed`."""
        return self.transform * Affine.translation(pixels.col0 - self.col0, pixels.row0 - self.row0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """An image and how a model reads it."""

    path: Path
    driver: str
    place: ImagePlace
    pixels: PixelBox
    """The image on the lattice."""
    bands: tuple[int, ...]
    """Bands to read, from 1, in the model's order."""
    masked: bool
    """True where an alpha band or an internal mask says what is data."""
    coding: Coding
    pads: tuple[float, ...]
    """What stands beyond the border, per band."""
    block: int

    @property
    def chip(self) -> bool:
        """True for an image that is looked at."""
        return self.driver in CHIPS

    @property
    def alone(self) -> "ImageFile":
        """The image on a lattice of its own, which begins at its first pixel."""
        height, width = self.pixels.shape
        return replace(
            self,
            place=replace(self.place, row0=0, col0=0),
            pixels=PixelBox(row0=0, col0=0, row1=height, col1=width),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWishes:
    """What the user says of the images."""

    bands: tuple[int, ...] = ()
    """From 1, in the model's order; empty takes them as they are."""
    scale: float | None = None
    """Stored value times this is in physical units; None takes what the file says."""


def list_images(path: Path) -> list[Path]:
    """The image, or those of a folder by name. Raises: UsageError."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path} is neither a file nor a folder")
    found = sorted(
        p
        for p in path.iterdir()
        if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    )
    if not found:
        raise UsageError(f"{path} holds no image ({', '.join(SUFFIXES)})")
    return found


def describe_image(path: Path, card: ModelCard, wishes: ImageWishes) -> ImageFile:
    """Hold an image's header against a model. Reads no pixel. Raises: ImageError."""
    with _opened(path) as dataset:
        bands = _bands(path, dataset, card, wishes)
        _check_kind(path, dataset, bands)
        scales = _scales(path, dataset, bands, card, wishes)
        flags = dataset.mask_flag_enums[bands[0] - 1]
        masked = MaskFlags.alpha in flags or (
            MaskFlags.per_dataset in flags and MaskFlags.nodata not in flags
        )
        if any(dataset.colorinterp[b - 1] == ColorInterp.alpha for b in bands):
            # a band that was asked for is a measurement, whatever it is called
            masked = False
        kind = np.dtype(dataset.dtypes[bands[0] - 1])
        if kind.kind != "f" and len(bands) > 1 and dataset.nodatavals[bands[0] - 1] is not None:
            # one black band is no hole: as GDAL has it, all of them are
            masked = True
        place = _place(dataset)
        coding, pads = _coding(dataset, bands, (card, scales, masked))
        rows = dataset.block_shapes[0][0]
        return ImageFile(
            path=path,
            driver=dataset.driver,
            place=place,
            pixels=PixelBox(
                row0=place.row0,
                col0=place.col0,
                row1=place.row0 + dataset.height,
                col1=place.col0 + dataset.width,
            ),
            bands=tuple(bands),
            masked=masked,
            coding=coding,
            pads=pads,
            block=rows * max(1, -(-_LEAST_ROWS // rows)),
        )


@contextmanager
def image_source(image: ImageFile) -> Iterator[Source]:
    """An image's stored layers; beyond its border there is nodata.

    Raises: ImageError, also while it is read.
    """
    with _opened(image.path, threads=True) as dataset:

        def read(box: PixelBox) -> Stored:
            try:
                return _read(dataset, image, box)
            except (RasterioError, SystemError) as reason:
                raise ImageError(
                    f"{image.path} cannot be read to its end ({reason}); it may be cut off: "
                    "fetch it again"
                ) from reason

        yield Source(read=read, block=image.block, origin=image.pixels.row0)


@contextmanager
def _opened(path: Path, threads: bool = False) -> Iterator[Any]:
    options = (
        {"num_threads": "all_cpus"} if threads and path.suffix.lower() in (".tif", ".tiff") else {}
    )
    with warnings.catch_warnings():
        # an image without a place on the ground is welcome
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            dataset = rasterio.open(path, **options)
        except RasterioError as reason:
            raise ImageError(
                f"{path} is no image that can be read ({reason}); convert it to GeoTIFF"
            ) from reason
        with dataset:
            yield dataset


def _check_kind(path: Path, dataset: Any, bands: Sequence[int]) -> None:
    """Refuse what no model takes. Raises: ImageError."""
    kinds = {dataset.dtypes[b - 1] for b in bands}
    if len(kinds) > 1 or any(kind.startswith("complex") for kind in kinds):
        raise ImageError(
            f"{path} holds {', '.join(sorted(kinds))}; write its bands as one real type first "
            "(gdal_translate -ot)"
        )
    if len({dataset.nodatavals[b - 1] for b in bands}) > 1:
        raise ImageError(f"{path} has another nodata in each band; give it one (gdal_translate)")
    if dataset.crs is None and dataset.gcps[0]:
        raise ImageError(f"{path} is located by ground control points; warp it first (gdalwarp)")


def _no_number_is_nan(values: np.ndarray, nodata: list[float | None]) -> None:
    """In place: nodata and infinity to NaN, band by band."""
    for band, marker in zip(values, nodata, strict=True):
        if marker is not None and not np.isnan(marker):
            band[band == np.float32(marker)] = np.nan
        band[~np.isfinite(band)] = np.nan


def _bands(path: Path, dataset: Any, card: ModelCard, wishes: ImageWishes) -> list[int]:
    """Which bands the model reads."""
    needed = len(card.bands)
    wanted = [b.split(":")[1] for b in card.bands]
    if wishes.bands:
        if len(wishes.bands) != needed:
            raise UsageError(f"--bands names {len(wishes.bands)}; {card.name!r} takes {wanted}")
        if max(wishes.bands) > dataset.count or min(wishes.bands) < 1:
            raise ImageError(f"{path} has {dataset.count} bands, --bands asks for {wishes.bands}")
        return list(wishes.bands)
    if ColorInterp.palette in dataset.colorinterp:
        raise ImageError(
            f"{path} has a colour table; write its colours as bands first (gdal_translate "
            "-expand rgb)"
        )
    plain = [i for i, c in enumerate(dataset.colorinterp, 1) if c != ColorInterp.alpha]
    named = {str(d).lower(): i for i, d in enumerate(dataset.descriptions, 1) if d}
    if all(name.lower() in named for name in wanted):
        return [named[name.lower()] for name in wanted]
    if len(plain) != needed:
        raise ImageError(
            f"{path} has {len(plain)} bands, model {card.name!r} takes {needed} "
            f"({', '.join(wanted)}); say which with --bands, e.g. "
            f"--bands {','.join(str(n + 1) for n in range(needed))}"
        )
    return plain


def _scales(
    path: Path, dataset: Any, bands: Sequence[int], card: ModelCard, wishes: ImageWishes
) -> list[tuple[float, float]]:
    """Scale and offset of each band, held against what the model is made for."""
    if wishes.scale is not None:
        return [(wishes.scale, 0.0)] * len(bands)
    scales = [(float(dataset.scales[b - 1]), float(dataset.offsets[b - 1])) for b in bands]
    kind = np.dtype(dataset.dtypes[bands[0] - 1])
    plain = all(s == (1.0, 0.0) for s in scales)
    if card.data_type and plain and kind != np.dtype(card.data_type):
        raise ImageError(
            f"{path} is {kind}, model {card.name!r} is made for {card.data_type}; convert it "
            "(gdal_translate -ot Byte -scale), or say with --scale what its values are times"
        )
    units = card.item["properties"].get("mapper:units", {})
    if plain and kind.kind in "iu" and any(units.get(b) == "reflectance" for b in card.bands):
        raise ImageError(
            f"{path} holds whole numbers, model {card.name!r} takes reflectance; give "
            "--scale, 0.0001 for Sentinel-2 as most archives store it"
        )
    return scales


def _place(dataset: Any) -> ImagePlace:
    """Pixels count from the origin of the CRS, so that images of one mosaic share windows."""
    transform = dataset.transform
    upright = transform.b == 0 and transform.d == 0 and transform.a > 0 and transform.e < 0
    row0 = col0 = 0
    if dataset.crs is not None and upright:
        row0, col0 = round(transform.f / transform.e), round(transform.c / transform.a)
    return ImagePlace(crs=dataset.crs, transform=transform, row0=row0, col0=col0)


def _coding(
    dataset: Any, bands: Sequence[int], about: tuple[ModelCard, list[tuple[float, float]], bool]
) -> tuple[Coding, tuple[float, ...]]:
    """How the bands are stored, and what stands beyond the border."""
    card, scales, masked = about
    kind = dataset.dtypes[bands[0] - 1]
    nodata, pads = dataset.nodatavals[bands[0] - 1], None
    if not holds(kind, nodata) or np.dtype(kind).kind == "f":
        # of floats, nodata and whatever is not finite becomes NaN
        nodata = None
    if nodata is None and not masked:
        pads = _pads(card, scales, kind)
    dtype: str = kind if kind != "float64" else "float32"
    if pads is None and (nodata is None or masked):
        dtype, nodata = _ROOMIER.get(kind, ("float32", float("nan")))
    layers: list[Layer] = []
    for scale, offset in dict.fromkeys(scales):
        channels = tuple(i for i, s in enumerate(scales) if s == (scale, offset))
        layers.append(
            Layer(
                name=f"image{len(layers)}",
                dtype=dtype,
                scale=scale,
                offset=offset,
                nodata=nodata,
                channels=channels,
            )
        )
    if pads is None:
        pads = (float(nodata),) * len(bands)
    return Coding(layers=tuple(layers), bands=len(card.bands)), pads


def _pads(
    card: ModelCard, scales: list[tuple[float, float]], kind: str
) -> tuple[float, ...] | None:
    """Stored values that become the card's fill; None where the type has none."""
    if card.validity_input or not np.issubdtype(np.dtype(kind), np.integer):
        return None
    limits, found = np.iinfo(np.dtype(kind)), []
    for scaling, (scale, offset) in zip(card.scaling, scales, strict=True):
        whole = scaling.after(scale, offset)
        pad = (card.fill - whole.offset) / whole.factor
        if pad != round(pad) or not limits.min <= pad <= limits.max:
            return None
        if not whole.low <= card.fill <= whole.high:
            return None
        found.append(pad)
    return tuple(found)


def _read(dataset: Any, image: ImageFile, box: PixelBox) -> Stored:
    common = box.intersect(image.pixels)
    dtype = image.coding.layers[0].dtype
    values = np.empty((len(image.bands), *box.shape), dtype=dtype)
    if common != box:
        for band, pad in zip(values, image.pads, strict=True):
            band[...] = pad
    if not common.empty:
        rows, cols = common.slices_in(image.pixels)
        window = RasterWindow.from_slices(rows, cols)
        inside = dataset.read(list(image.bands), window=window).astype(dtype, copy=False)
        if inside.dtype.kind == "f":
            _no_number_is_nan(inside, [dataset.nodatavals[b - 1] for b in image.bands])
        if image.masked:
            absent = dataset.dataset_mask(window=window) == 0
            inside[:, absent] = image.coding.layers[0].nodata
        values[(slice(None), *common.slices_in(box))] = inside
    if len(image.coding.layers) == 1:
        return (values,)
    return tuple(values[list(layer.channels)] for layer in image.coding.layers)
