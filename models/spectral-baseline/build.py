"""Writes `model.onnx`, `reference.npz` and `item.json` here; the README cites each rule."""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))

from formulas import (  # noqa: E402
    Formulas,
    describe_inputs,
    describe_output,
    index_rule,
    ramp_rule,
    write_model,
)

RED, GREEN, NIR = "sentinel2:red", "sentinel2:green", "sentinel2:nir"
BLUE, SWIR = "sentinel2:blue", "sentinel2:swir16"
VV, VH = "sentinel1:vv", "sentinel1:vh"

CLASSES = (
    ("water", "Water", "419BDF"),
    ("green", "Green", "397D49"),
    ("built-up", "Built-up", "C4281B"),
    ("bare", "Bare ground", "A59B8F"),
    ("other", "Other land", "E3D9A6"),
)

# NDVI 0.2 and 0.5 are the ends of one ramp, split at its middle so that "other" can be a hill.
NDVI = {"plus": [NIR], "minus": [RED], "threshold": 0.35, "width": 0.15}

RULES = (
    index_rule(
        "ndvi-low",
        **NDVI,
        high=0.0,
        weights={"water": -2, "green": 4, "built-up": -2, "bare": -2, "other": 2.5},
    ),
    index_rule(
        "ndvi-high",
        **NDVI,
        low=0.0,
        weights={"water": -2, "green": 4, "built-up": -2, "bare": -2, "other": -2.5},
    ),
    index_rule("ndwi", [GREEN], [NIR], threshold=0.0, width=0.4, weights={"water": 6}),
    ramp_rule(
        "nir-dark",
        NIR,
        threshold=0.15,
        width=-0.15,
        low=0.0,
        weights={"water": 3, "bare": -1},
    ),
    ramp_rule("nir-bright", NIR, threshold=0.15, width=0.05, low=0.0, weights={"water": -3}),
    index_rule("redness", [RED], [GREEN], threshold=0.0, width=0.2, low=0.0, weights={"bare": 1}),
    index_rule("mndwi", [GREEN], [SWIR], threshold=0.0, width=0.42, weights={"water": 3}),
    ramp_rule("swir-dark", SWIR, threshold=0.09, width=-0.09, low=0.0, weights={"water": 3}),
    ramp_rule("swir-bright", SWIR, threshold=0.09, width=0.05, low=0.0, weights={"water": -3}),
    index_rule(
        "ndbi",
        [SWIR],
        [NIR],
        threshold=0.0,
        width=0.1,
        weights={"water": 1, "built-up": 1, "bare": 1},
    ),
    index_rule(
        "bsi",
        [SWIR, RED],
        [NIR, BLUE],
        threshold=0.1,
        width=0.1,
        weights={"bare": 1},
    ),
    ramp_rule("vv-water", VV, threshold=-15.5, width=-3.0, low=-0.5, weights={"water": 1.5}),
    ramp_rule("vh-water", VH, threshold=-23.0, width=-3.0, low=-0.5, weights={"water": 1.5}),
    ramp_rule("vv-built", VV, threshold=-7.0, width=3.0, low=0.0, weights={"built-up": 2}),
)

MODEL = Formulas(
    name="spectral-baseline",
    bands=(RED, GREEN, NIR, BLUE, SWIR, VV, VH),
    rules=RULES,
    start={"water": 0.0, "green": 0.0, "built-up": 0.0, "bare": -0.75, "other": 3.0},
    tiny=1e-3,
)

SOURCES = (
    ("https://doi.org/10.1016/0034-4257(79)90013-0", "Tucker 1979: NDVI"),
    ("https://doi.org/10.1016/j.rse.2004.02.003", "Sobrino et al. 2004: NDVI 0.2 and 0.5"),
    ("https://doi.org/10.1080/01431169608948714", "McFeeters 1996: NDWI"),
    ("https://doi.org/10.1080/01431160600589179", "Xu 2006: MNDWI"),
    ("https://doi.org/10.1080/01431160304987", "Zha et al. 2003: NDBI"),
    ("http://tropecol.com/pdf/open/PDF_43_1/43104.pdf", "Rikimaru et al. 2002: BSI"),
    ("https://doi.org/10.3390/rs11040374", "Jones 2019: partial surface water tests"),
    ("https://github.com/ASFHyP3/asf-tools", "ASF tools: Sentinel-1 RTC water thresholds"),
    (
        "https://custom-scripts.sentinel-hub.com/custom-scripts/data-fusion/urban_s1_s2/",
        "Šebela: urban detection with Sentinel-1 and Sentinel-2",
    ),
    (
        "https://custom-scripts.sentinel-hub.com/custom-scripts/sentinel-2/"
        "water_bodies_mapping-wbm/",
        "Gartner: water bodies mapping",
    ),
)

PROPERTIES = {
    "description": (
        "Water, green, built-up, bare and other land from published spectral and backscatter "
        "rules, pixel by pixel. Needs red, green and near infrared; blue, short-wave infrared "
        "and Sentinel-1 are used where they are valid. No trained weights, no fitted "
        "thresholds, no claim of accuracy."
    ),
    "mlm:architecture": "Rule set (sum of clipped index memberships)",
    "mlm:input": describe_inputs(
        MODEL,
        "Surface reflectance 0 to 1; gamma nought backscatter in dB.",
        "1 where the band holds a measurement, 0 where it is missing; a missing value is not "
        "looked at.",
    ),
    "mlm:output": describe_output(CLASSES),
    "bands": [
        {"name": RED, "description": "Red, 665 nm", "unit": "1"},
        {"name": GREEN, "description": "Green, 560 nm", "unit": "1"},
        {"name": NIR, "description": "Near infrared, 842 nm", "unit": "1"},
        {"name": BLUE, "description": "Blue, 490 nm; optional", "unit": "1"},
        {"name": SWIR, "description": "Short-wave infrared, 1610 nm; optional", "unit": "1"},
        {"name": VV, "description": "C-band gamma nought, VV; optional", "unit": "dB"},
        {"name": VH, "description": "C-band gamma nought, VH; optional", "unit": "dB"},
    ],
    "mapper:required": [RED, GREEN, NIR],
    "mapper:units": {
        **dict.fromkeys([RED, GREEN, NIR, BLUE, SWIR], "reflectance"),
        **dict.fromkeys([VV, VH], "dB"),
    },
}

RANGES = {
    **dict.fromkeys([RED, GREEN, NIR, BLUE, SWIR], (0.0, 0.5)),
    **dict.fromkeys([VV, VH], (-28.0, 2.0)),
}

if __name__ == "__main__":
    write_model(FOLDER, MODEL, PROPERTIES, SOURCES, RANGES)
