"""The one source of class ids, names, colours and nodata.

Colour tables, CF flags, STAC classes and legends are all derived from a `ClassTable`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mapper.errors import ModelError

_NAME = re.compile(r"^[0-9A-Za-z-_]+$")
_COLOR = re.compile(r"^[0-9A-F]{6}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class MapClass:
    """One class of a map."""

    value: int
    """Pixel value, 0 to 254."""
    name: str
    """Machine name, letters, digits, `-` and `_` only (STAC classification 2.0)."""
    title: str
    """Name for people."""
    color: str
    """Six upper-case hexadecimal digits, no `#`."""

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 254:
            raise ModelError(f"class {self.name!r} has value {self.value}; use 0 to 254")
        if not _NAME.fullmatch(self.name):
            raise ModelError(f"class name {self.name!r} may hold letters, digits, '-' and '_' only")
        if not _COLOR.fullmatch(self.color):
            raise ModelError(f"class {self.name!r} has colour {self.color!r}; write it like 397D49")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0 to 255."""
        return int(self.color[:2], 16), int(self.color[2:4], 16), int(self.color[4:], 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTable:
    """The classes of a map, in channel order of the model that makes it."""

    classes: tuple[MapClass, ...]
    nodata: int = 255
    """Pixel value of "no class"; never the value of a class."""

    def __post_init__(self) -> None:
        values = [c.value for c in self.classes]
        if not values:
            raise ModelError("the class table is empty; list the classes of the model's output")
        for what, seen in (("value", values), ("name", [c.name for c in self.classes])):
            if len(set(seen)) != len(seen):
                raise ModelError(f"two classes share a {what}: {sorted(map(str, seen))}")
        if not 0 <= self.nodata <= 255:
            raise ModelError(f"nodata is {self.nodata}; use 0 to 255")
        if self.nodata in values:
            raise ModelError(f"nodata {self.nodata} is also a class; choose another value")

    @property
    def values(self) -> tuple[int, ...]:
        """Pixel values in channel order."""
        return tuple(c.value for c in self.classes)

    @property
    def category_names(self) -> tuple[str, ...]:
        """Titles of the pixel values 0, 1, 2 and so on; empty where there is no class."""
        titles = {c.value: c.title for c in self.classes}
        return tuple(titles.get(value, "") for value in range(max(titles) + 1))

    def colormap(self) -> dict[int, tuple[int, int, int, int]]:
        """Colour table for `rasterio.write_colormap`; nodata is transparent."""
        table = {c.value: (*c.rgb, 255) for c in self.classes}
        table[self.nodata] = (0, 0, 0, 0)
        return table

    def cf_attributes(self) -> dict[str, Any]:
        """CF `flag_values` and `flag_meanings`."""
        return {
            "flag_values": list(self.values),
            "flag_meanings": " ".join(c.name for c in self.classes),
        }

    def to_stac(self) -> list[dict[str, Any]]:
        """`classification:classes` (STAC classification 1.1 and 2.0), nodata included."""
        classes: list[dict[str, Any]] = [
            {"value": c.value, "name": c.name, "title": c.title, "color_hint": c.color}
            for c in self.classes
        ]
        classes.append({"value": self.nodata, "name": "nodata", "title": "No data", "nodata": True})
        return classes

    @classmethod
    def from_stac(cls, classes: Sequence[dict[str, Any]]) -> "ClassTable":
        """Read `classification:classes`; an entry with `nodata: true` sets the nodata value.

        Raises: ModelError where an entry lacks its value, name or colour.
        """
        found, nodata = [], 255
        for entry in classes:
            if entry.get("nodata"):
                nodata = int(entry["value"])
                continue
            try:
                name = str(entry["name"])
                found.append(
                    MapClass(
                        value=int(entry["value"]),
                        name=name,
                        title=str(entry.get("title", name)),
                        color=str(entry["color_hint"]),
                    )
                )
            except KeyError as missing:
                raise ModelError(f"class {entry} lacks {missing}; add it") from missing
        return cls(classes=tuple(found), nodata=nodata)
