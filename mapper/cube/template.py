"""The arrays that each kind of source stores, known before any pixel is read."""

from mapper.recipe import (
    ElevationSource,
    ImagerySource,
    Sentinel1Source,
    Sentinel2Source,
    Source,
    layers_of,
)
from mapper.store.template import ArrayTemplate

REFLECTANCE_SCALE = 0.0001
"""Sentinel-2 is stored as uint16; times this it is reflectance. 0 is nodata."""

STATUS = {
    0: "observed",
    1: "outside",
    2: "never_observed",
    3: "masked",
    4: "failed",
    5: "kept_although_masked",
}
"""Per pixel, whether a source has a value and, if not, why; `outside` is set at publishing."""

PIXELS_VERSION = {"sentinel-2": 1, "sentinel-1": 1, "elevation": 1, "imagery": 1}
"""Raised whenever an ingest step of that kind gives other pixels for the same input."""


def source_templates(name: str, source: Source) -> tuple[ArrayTemplate, ...]:
    """Data, observation count and status arrays of one source."""
    return (_data_template(name, source), *count_templates(name))


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


def _data_template(name: str, source: Source) -> ArrayTemplate:
    bands = tuple(layers_of(source))
    match source:
        case Sentinel2Source():
            return ArrayTemplate(
                name=name,
                dtype="uint16",
                fill=0,
                bands=bands,
                attributes={
                    "long_name": "median surface reflectance",
                    "units": "1",
                    "scale_factor": REFLECTANCE_SCALE,
                    "add_offset": 0.0,
                    "_FillValue": 0,
                    "cell_methods": "time: median (even counts: mean of the middle two, half up)",
                },
            )
        case Sentinel1Source():
            return ArrayTemplate(
                name=name,
                dtype="float32",
                fill=float("nan"),
                bands=bands,
                attributes={
                    "long_name": "gamma nought, mean in linear power",
                    "units": "dB",
                    "cell_methods": "time: mean (in linear power)",
                },
            )
        case ElevationSource():
            return ArrayTemplate(
                name=name,
                dtype="float32",
                fill=float("nan"),
                bands=bands,
                attributes={"long_name": "elevation (m), slope and aspect (degrees)"},
            )
        case ImagerySource():
            return ArrayTemplate(
                name=name,
                dtype="uint16",
                fill=65535,
                bands=bands,
                attributes={
                    "long_name": "digital numbers of the imagery",
                    "units": "1",
                    "_FillValue": 65535,
                },
            )
