"""The arrays that each kind of source stores, known before any pixel is read."""

import math
from typing import Any

from mapper.catalog.archives import layer_classes
from mapper.recipe import (
    MADS,
    ElevationSource,
    ImagerySource,
    LayerSource,
    Sentinel1Source,
    Sentinel2Source,
    Source,
    layers_of,
)
from mapper.store.template import ArrayTemplate

REFLECTANCE_SCALE = 0.0001
"""Sentinel-2 is stored as uint16; times this it is reflectance. 0 is nodata."""

_METHODS = {
    "median": "median",
    "medoid": "medoid of",
    "geomedian": "geometric median of",
    "mean": "mean",
    "percentiles": "percentiles of",
    "best": "best pixel of",
}
_CELL_METHODS = {
    "median": "median (even counts: mean of the middle two, half up)",
    "medoid": "medoid (the look with the least sum of distances to the others)",
    "geomedian": "geometric median (Weiszfeld)",
    "mean": "mean (half up)",
    "percentiles": "percentiles (linear between ranks, half up)",
    "best": "the look with the highest score",
}
_SPECKLE = "multitemporal, window of {0} x {0} pixels (Quegan and Yu 2001)"

STATUS = {
    0: "observed",
    1: "outside",
    2: "never_observed",
    3: "masked",
    4: "failed",
    5: "kept_although_masked",
}
"""Per pixel, whether a source has a value and, if not, why; `outside` is set at publishing."""

PIXELS_VERSION = {"sentinel-2": 2, "sentinel-1": 2, "elevation": 2, "imagery": 2, "layer": 1}
"""Raised whenever an ingest step of that kind gives other pixels for the same input."""


def source_templates(name: str, source: Source) -> tuple[ArrayTemplate, ...]:
    """Every array of one source: data, what is kept beside it, observation count and status."""
    return (
        *data_templates(name, source),
        *_beside_templates(name, source),
        *count_templates(name),
    )


def data_templates(name: str, source: Source) -> tuple[ArrayTemplate, ...]:
    """The arrays that a model can read: the data, and indices where there are any."""
    if isinstance(source, Sentinel2Source) and source.indices:
        return _data_template(name, source), _index_template(name, source)
    return (_data_template(name, source),)


def _flags(source: LayerSource) -> dict[str, Any]:
    """What the values of a map by others mean, where mapper knows it."""
    known = [table for c in source.collections if (table := layer_classes(c)) is not None]
    if len(known) != len(source.collections) or len(set(known)) != 1:
        return {}
    classes = known[0].classes
    return {
        "flag_values": [c.value for c in classes],
        "flag_meanings": " ".join(c.name for c in classes),
    }


def _index_template(name: str, source: Sentinel2Source) -> ArrayTemplate:
    return ArrayTemplate(
        name=f"{name}_indices",
        dtype="float32",
        fill=float("nan"),
        bands=tuple(source.indices),
        attributes={"long_name": f"indices of the {source.composite.method}", "units": "1"},
    )


def _beside_templates(name: str, source: Source) -> tuple[ArrayTemplate, ...]:
    """What a reducer gives beside the composite."""
    if not isinstance(source, Sentinel2Source):
        return ()
    found = []
    if source.composite.mads:
        found.append(
            ArrayTemplate(
                name=f"{name}_mads",
                dtype="float32",
                fill=float("nan"),
                bands=MADS,
                attributes={
                    "long_name": "median absolute deviations from the geometric median: "
                    "Euclidean, spectral (cosine) and Bray-Curtis distance",
                    "units": "1",
                },
            )
        )
    if source.composite.dates:
        found.append(
            ArrayTemplate(
                name=f"{name}_date",
                dtype="uint16",
                fill=0,
                attributes={
                    "long_name": "date of the look that is, or is nearest to, the composite",
                    "units": "days since 1970-01-01",
                    "_FillValue": 0,
                },
            )
        )
    return tuple(found)


def count_templates(name: str) -> tuple[ArrayTemplate, ArrayTemplate]:
    """Observation count and status arrays of one source."""
    return (
        ArrayTemplate(
            name=f"{name}_count",
            dtype="uint16",
            fill=0,
            attributes={"long_name": f"number of valid observations of {name}", "units": "1"},
        ),
        ArrayTemplate(
            name=f"{name}_status",
            dtype="uint8",
            fill=2,
            attributes={
                "long_name": f"whether {name} has a value, and why not",
                "flag_values": list(STATUS),
                "flag_meanings": " ".join(STATUS.values()),
            },
        ),
    )


_STORED: dict[str, tuple[str, float]] = {
    "sentinel-2": ("uint16", 0),
    "sentinel-1": ("float32", float("nan")),
    "elevation": ("float32", float("nan")),
    "imagery": ("uint16", 65535),
    "layer": ("uint8", 255),
}
"""Per kind, the type that is stored and its value without data."""


def _data_template(name: str, source: Source) -> ArrayTemplate:
    dtype, fill = _STORED[source.kind]
    attributes = _about(source) | {"resampling": source.resampling}
    if not math.isnan(fill):
        attributes["_FillValue"] = fill
    bands = tuple(layers_of(source))
    return ArrayTemplate(name=name, dtype=dtype, fill=fill, bands=bands, attributes=attributes)


def _about(source: Source) -> dict[str, Any]:
    """What the values of a source are."""
    match source:
        case Sentinel2Source():
            return {
                "long_name": f"{_METHODS[source.composite.method]} surface reflectance",
                "units": "1",
                "scale_factor": REFLECTANCE_SCALE,
                "add_offset": 0.0,
                "cell_methods": f"time: {_CELL_METHODS[source.composite.method]}",
            }
        case Sentinel1Source():
            return {
                "long_name": "gamma nought, mean in linear power",
                "units": "dB",
                "cell_methods": "time: mean (in linear power)",
                "speckle_filter": _SPECKLE.format(source.speckle) if source.speckle else "none",
            }
        case ElevationSource():
            return {"long_name": "elevation (m), slope and aspect (degrees)"}
        case ImagerySource():
            return {"long_name": "digital numbers of the imagery", "units": "1"}
        case LayerSource():
            known = f"class values of {', '.join(source.collections)}"
            return {"long_name": known, "units": "1", **_flags(source)}
