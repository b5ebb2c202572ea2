"""Class tables of label rasters: from a STAC item, from the file's colours and tags, or written.

Whatever value a raster has for "no class", the tables made here say 255.
"""

import colorsys
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mapper.classes import ClassTable, MapClass
from mapper.errors import DataError, ModelError

_TAG = re.compile(r"CLASS_(\d+)")
_NOTHING = {"nodata", "no-data", "no_data"}
TIFF = (".tif", ".tiff")

Colors = Mapping[int, tuple[int, ...]]
"""Colour table of a file: value to red, green, blue and more."""
Item = tuple[Mapping[str, Any], Path]
"""A STAC item and the folder that its hrefs count from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What STAC says of an asset."""

    classes: Sequence[Mapping[str, Any]] = ()
    """`classification:classes`; empty where there are none."""
    license: str = ""


def read_legend(path: Path) -> ClassTable:
    """Classes in a YAML or JSON file: a list, or one under `classes`.

    Each has `value`, `name`, and if wanted `title` and `color` (or `color_hint`).

    Raises: DataError.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as reason:
        raise DataError(f"{path} cannot be read as YAML or JSON: {reason}") from reason
    if isinstance(content, dict):
        content = content.get("classes", content.get("classification:classes"))
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise DataError(f"{path} lists no classes; write a list of entries with value and name")
    return legend_of(content, {}, None, str(path))


def legend_of(
    entries: Sequence[Mapping[str, Any]], colors: Colors, nodata: float | None, where: str
) -> ClassTable:
    """A class table from `classification:classes` or the like; missing colours are made up.

    Args:
        entries: with `value` and `name`, in channel order.
        colors: of the file, for entries without a colour of their own.
        nodata: of the file; an entry with that value is no class.
        where: what messages call it.

    Raises: DataError.
    """
    found = []
    for number, entry in enumerate(entries):
        if "value" not in entry:
            raise DataError(f"{where}: class {dict(entry)} has no value; add it")
        if isinstance(entry["value"], list):
            raise DataError(f"{where}: class {dict(entry)} has several values; list each apart")
        name = str(entry.get("name") or entry.get("title") or f"class-{entry['value']}")
        if entry.get("nodata") or entry["value"] == nodata or name.lower() in _NOTHING:
            continue
        color = entry.get("color") or entry.get("color_hint")
        found.append((entry, name, color or _color(colors.get(int(entry["value"])), number)))
    try:
        return ClassTable(
            classes=tuple(
                MapClass(
                    value=int(entry["value"]),
                    name=re.sub(r"[^0-9A-Za-z_-]+", "-", name).strip("-"),
                    title=str(entry.get("title") or name),
                    color=str(color).lstrip("#").upper(),
                )
                for entry, name, color in found
            )
        )
    except (ModelError, ValueError) as reason:
        raise DataError(f"{where}: {reason}") from reason


def legend_in(dataset: Any) -> ClassTable | None:
    """From the tags `CLASS_0`, `CLASS_1` ... of an open raster and its colours.

    Returns: None where it has no such tags.
    """
    tags = dataset.tags() | dataset.tags(1)
    named = {int(m[1]): text for key, text in tags.items() if (m := _TAG.fullmatch(key)) and text}
    if not named:
        return None
    entries = [{"value": value, "name": name} for value, name in sorted(named.items())]
    return legend_of(entries, colors_of(dataset), dataset.nodata, dataset.name)


def colors_of(dataset: Any) -> Colors:
    """The colour table of an open raster; empty where it has none."""
    try:
        return dict(dataset.colormap(1))
    except ValueError:
        return {}


def _color(found: Sequence[int] | None, number: int) -> str:
    """As six hexadecimal digits; hues far apart where the file has no colour."""
    if found is None:
        shares = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.6, 0.8)
        found = [round(255 * share) for share in shares]
    return "".join(f"{part:02X}" for part in found[:3])


# what STAC says ----------------------------------------------------------------------------


def items_near(folder: Path, pattern: str = "**/*.json") -> Iterator[Item]:
    """Every STAC item in a folder, by default also below; other JSON is passed over."""
    for path in sorted(folder.glob(pattern)):
        try:
            content = _json(path)
        except DataError:
            continue
        if content.get("type") == "Feature" and isinstance(content.get("assets"), dict):
            yield content, path.parent


def items_of(path: Path) -> Iterator[Item]:
    """The items of a static catalog, a collection, an item collection, or an item.

    Raises: DataError where a file is missing or is no STAC.
    """
    content = _json(path)
    kind = content.get("type")
    if kind == "Feature":
        yield content, path.parent
    elif kind == "FeatureCollection":
        yield from ((item, path.parent) for item in content.get("features", ()))
    elif kind in ("Catalog", "Collection"):
        for link in content.get("links", ()):
            if link.get("rel") in ("child", "item"):
                yield from items_of(path.parent / link["href"])
    else:
        raise DataError(f"{path} is no STAC catalog, collection or item; name one, or a folder")


def described_rasters(items: Iterator[Item]) -> dict[str, Described]:
    """What items say of their GeoTIFFs, by absolute path or address."""
    found = {}
    for item, folder in items:
        for asset in item["assets"].values():
            href = str(asset["href"])
            if Path(href.split("?")[0]).suffix.lower() not in TIFF:
                continue
            place = href if "://" in href else str((folder / href).resolve())
            bands = [*(asset.get("bands") or ()), *(asset.get("raster:bands") or ()), {}]
            classes = asset.get("classification:classes") or bands[0].get("classification:classes")
            found[place] = Described(classes=classes or (), license=_license(item, folder))
    return found


def _license(item: Mapping[str, Any], folder: Path) -> str:
    """Of an item, or of its collection; empty where neither says."""
    own = item["properties"].get("license")
    if own:
        return str(own)
    for link in item.get("links", ()):
        if link.get("rel") == "collection" and "://" not in link["href"]:
            path = folder / link["href"]
            return str(_json(path).get("license", "")) if path.is_file() else ""
    return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise DataError(f"{path} cannot be read as JSON ({reason}); mend or move it") from reason
    return content if isinstance(content, dict) else {}
