"""Observations: items of one platform and datatake are one look at the ground, not several."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from mapper.catalog.bands import Item

_BASELINE = re.compile(r"_N\d\d\.\d\d$")
"""How a Sentinel-2 datatake's name ends: not the pass, but its processing."""
_AZIMUTHS = ("view:sun_azimuth", "s2:mean_solar_azimuth", "eo:sun_azimuth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One pass of one satellite over a tile: granules that are laid over each other."""

    key: str
    """Platform and datatake."""
    items: tuple[Item, ...]
    """First wins where several have data: those in the grid's own zone, then by id."""


def datatake(item: Item) -> str:
    """Platform and datatake of a scene; platform and day where it names no datatake.

    The processing baseline at the end of Sentinel-2's datatake names is left out: granules of
    one pass are one look, although some were processed again.
    """
    properties = item["properties"]
    platform = str(properties.get("platform", "")).lower()
    for name in ("s2:datatake_id", "sat:absolute_orbit", "s1:datatake_id"):
        if properties.get(name):
            return f"{platform}/{_BASELINE.sub('', str(properties[name]))}"
    return f"{platform}/{moment(item)[:10]}"


def moment(item: Item) -> str:
    """The scene's time as its item gives it; the start of its range where there is no instant."""
    properties = item["properties"]
    return str(properties.get("datetime") or properties.get("start_datetime") or "")


def epsg_of(item: Item) -> int | None:
    """The scene's CRS by its properties, old (`proj:epsg`) or new (`proj:code`)."""
    properties = item["properties"]
    code = str(properties.get("proj:code", ""))
    if code.upper().startswith("EPSG:"):
        return int(code[5:])
    epsg = properties.get("proj:epsg")
    return int(epsg) if epsg else None


def group_observations(items: Iterable[Item], epsg: int) -> list[Observation]:
    """Group items by datatake, ordered by (time, key); within one, the grid's zone comes first."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[datatake(item)].append(item)
    ordered = [
        Observation(
            key=key,
            items=tuple(sorted(group, key=lambda i: (epsg_of(i) != epsg, moment(i), i["id"]))),
        )
        for key, group in groups.items()
    ]
    return sorted(ordered, key=lambda o: (min(map(moment, o.items)), o.key))


def orbit_state(item: Item) -> str:
    """`ascending`, `descending` or `unknown`; an unknown orbit is a value of its own."""
    state = str(item["properties"].get("sat:orbit_state", "")).lower()
    return state if state in {"ascending", "descending"} else "unknown"


def azimuth_of(item: Item) -> float | None:
    """Azimuth of the sun over a scene in degrees clockwise from north, 0 up to 360.

    Returns: None where the item names none that is a finite number.
    """
    for name in _AZIMUTHS:
        value = item["properties"].get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if math.isfinite(value):
            return float(value) % 360
    return None
