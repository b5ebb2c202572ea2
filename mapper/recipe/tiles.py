"""A tile service (XYZ or WMTS) as a recipe names it: address, terms and the operator's permission.

Tile services are made for looking at, and most forbid taking tiles in bulk. So a recipe has to
say where the operator allows it and how fast, before the first tile is asked for.
"""

import datetime
import hashlib
import json
import re
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, StrictInt, StrictStr, field_validator, model_validator

from mapper.recipe.section import Section

MOST_ZOOM = 23
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_XYZ_PLACEHOLDERS = {"z", "x", "y", "-y", "key"}
_REFUSED = {
    "s": "name one host; spreading requests over several evades the operator's own limits",
    "q": "quadkeys are not supported; ask the operator for a {z}/{x}/{y} address",
    "r": "write the tile size that is wanted into the address, and set tile_size",
}
_SECRET_NAME = re.compile(r"key|token|secret|sig|passw|credential|auth", re.IGNORECASE)
_WANTED = {
    "permission": "say where and how the operator permits taking tiles in bulk, such as "
    "'CC-BY 4.0, section 3 of the terms of use' or 'letter of 2024-03-01, reference 17/24'; "
    "without it no tile is asked for",
    "attribution": "name whom the operator wants to be credited, in the operator's words",
    "license": "give the SPDX name of the imagery's licence, or `other`",
}
_NO_PERMISSION = {"yes", "true", "ok", "todo", "tbd", "none", "unknown", "n/a", "na", "-", "?"}


class TileService(Section):
    """Imagery served as tiles: XYZ, or WMTS where `layer` is given."""

    url: str = Field(
        description="XYZ template with {z}, {x} and {y} (or {-y}, rows counted from the south), "
        "or the address of a WMTS capabilities document; {key} stands for the API key"
    )
    zoom: StrictInt | StrictStr = Field(
        description="XYZ level, 0 to 23; for WMTS the identifier of the tile matrix"
    )
    attribution: str = Field(description="Credit line of the imagery")
    license: str = Field(description="Licence of the imagery (SPDX or `other`)")
    permission: str = Field(description="Where and how the operator permits bulk use")
    requests_per_second: float = Field(
        gt=0, le=50, allow_inf_nan=False, description="Most requests a second, over all workers"
    )
    terms_url: str = Field(default="", description="Where the operator's terms of use are")
    layer: str = Field(default="", description="WMTS layer; empty for XYZ")
    style: str = Field(default="", description="WMTS style; the layer's default where empty")
    matrix_set: str = Field(
        default="", description="WMTS tile matrix set; one in EPSG:3857 where empty"
    )
    tile_size: Literal[256, 512] = Field(
        default=256, description="Pixels a side of an XYZ tile; WMTS documents say their own"
    )
    date: datetime.date | None = Field(
        default=None,
        description="Day the imagery is of; undated, and used for any period, if empty",
    )
    bands: list[str] = Field(
        default=["red", "green", "blue"], description="What the channels are: one or three names"
    )
    empty: Literal["nodata", "fail"] = Field(
        default="nodata",
        description="What a missing tile (404, 204) means: ground without imagery, or a failure",
    )
    key_variable: str = Field(
        default="", description="Environment variable that holds the API key for {key}"
    )
    bounds: Annotated[list[float], Field(min_length=4, max_length=4)] | None = Field(
        default=None, description="West, south, east, north of the imagery in degrees; the world"
    )

    @property
    def is_wmts(self) -> bool:
        """True where the address is a capabilities document."""
        return bool(self.layer)

    @property
    def identity(self) -> str:
        """Hash of what decides the pixels: address, level, layer, channels and date."""
        names = {"url", "zoom", "layer", "style", "matrix_set", "tile_size", "bands", "date"}
        what = self.model_dump(mode="json", include=names | {"bounds", "empty"})
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    @model_validator(mode="before")
    @classmethod
    def _ask_for_what_is_missing(cls, data: Any) -> Any:
        """A missing text becomes an empty one, so that the answer says what is wanted."""
        return dict.fromkeys(_WANTED, "") | data if isinstance(data, dict) else data

    @field_validator("attribution", "license", "permission", mode="before")
    @classmethod
    def _is_text(cls, text: Any, info: Any) -> str:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{text!r}: {_WANTED[info.field_name]}")
        return text.strip()

    @field_validator("permission")
    @classmethod
    def _permission_says_where(cls, text: str) -> str:
        if text.lower().rstrip(".!") in _NO_PERMISSION or len(text.split()) < 2:
            raise ValueError(f"{text!r} names no permission: {_WANTED['permission']}")
        return text

    @field_validator("url")
    @classmethod
    def _address_can_be_asked(cls, url: str) -> str:
        parts = _parts_of(url)
        if parts.username or parts.password:
            raise ValueError("the address holds a user name; put the key into key_variable")
        if parts.fragment:
            raise ValueError("the address has a part behind '#', which no server sees; remove it")
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if _SECRET_NAME.search(name) and value != "{key}":
                raise ValueError(
                    f"the address holds a value for {name!r}; write {name}={{key}} and name an "
                    "environment variable in key_variable"
                )
        if "{" in parts.netloc.replace("{s}", ""):
            raise ValueError("the host of the address has a placeholder; name the host")
        if "{key}" in url and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise ValueError("the key would travel unencrypted; use an https address")
        return url

    @field_validator("terms_url")
    @classmethod
    def _terms_are_an_address(cls, url: str) -> str:
        if url:
            _parts_of(url)
        return url

    @field_validator("key_variable")
    @classmethod
    def _variable_is_a_name(cls, name: str) -> str:
        # the value is not shown: it may be the key itself, put into the wrong place
        if name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            raise ValueError("give the name of an environment variable, not the key itself")
        return name

    @field_validator("bands")
    @classmethod
    def _bands_are_channels(cls, bands: list[str]) -> list[str]:
        if len(bands) not in (1, 3) or len(set(bands)) < len(bands):
            raise ValueError(f"{bands}: a tile has one channel or three; name each once")
        return bands

    @field_validator("bounds")
    @classmethod
    def _bounds_are_a_box(cls, bounds: list[float] | None) -> list[float] | None:
        if bounds is None:
            return None
        west, south, east, north = bounds
        if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
            raise ValueError(f"{bounds}: give west < east in -180..180, south < north in -90..90")
        return bounds

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "TileService":
        found = set(_PLACEHOLDER.findall(self.url))
        if ("key" in found) != bool(self.key_variable):
            raise ValueError(
                "url and key_variable go together: write {key} where the key belongs and name "
                "the environment variable that holds it, or leave out both"
            )
        if self.is_wmts:
            if found - {"key"}:
                raise ValueError(
                    f"url has {sorted(found - {'key'})} and layer is set; give the address of "
                    "the WMTS capabilities document, or leave out layer"
                )
            return self
        if self.style or self.matrix_set:
            raise ValueError("style and matrix_set are for WMTS; name the layer too")
        _check_xyz(found, self.zoom)
        return self


def _parts_of(url: str) -> Any:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("give an address that begins with https:// or http://")
    return parts


def _check_xyz(found: set[str], zoom: int | str) -> None:
    for name in sorted(found - _XYZ_PLACEHOLDERS):
        why = _REFUSED.get(name, "only {z}, {x}, {y}, {-y} and {key} can be filled in")
        raise ValueError(f"url has {{{name}}}: {why}")
    if not {"z", "x"} <= found or len(found & {"y", "-y"}) != 1:
        raise ValueError(
            "url is no XYZ template; write {z}, {x} and one of {y} and {-y} into it, or name the "
            "layer of a WMTS service"
        )
    if not isinstance(zoom, int) or not 0 <= zoom <= MOST_ZOOM:
        raise ValueError(f"zoom {zoom!r}: an XYZ level is a whole number from 0 to {MOST_ZOOM}")
