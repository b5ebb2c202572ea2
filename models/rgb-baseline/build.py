"""Writes `model.onnx`, `reference.npz` and `item.json` here; the README cites each rule."""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))

from formulas import (  # noqa: E402
    Formulas,
    Rule,
    describe_inputs,
    describe_output,
    index_rule,
    write_model,
)

RED, GREEN, BLUE = "highres:red", "highres:green", "highres:blue"

CLASSES = (("other", "Other", "D9D4C7"), ("green", "Green", "397D49"))

RULES = (
    # GLI has the sign of the excess green index: both are zero where g = (r + b) / 2.
    Rule(
        name="gli",
        top={GREEN: 20.0, RED: -10.0, BLUE: -10.0},
        bottom={GREEN: 2.0, RED: 1.0, BLUE: 1.0},
        weights={"green": 3},
    ),
    index_rule("ngrdi", [GREEN], [RED], threshold=0.0, width=0.1, weights={"green": 1.5}),
    Rule(
        name="exgr",
        top={GREEN: 30.0, RED: -24.0, BLUE: -10.0},
        bottom={GREEN: 1.0, RED: 1.0, BLUE: 1.0},
        weights={"green": 1.5},
    ),
)

MODEL = Formulas(
    name="rgb-baseline",
    bands=(RED, GREEN, BLUE),
    rules=RULES,
    start={"other": 0.0, "green": 0.0},
    tiny=1.0,
)

SOURCES = (
    ("https://doi.org/10.13031/2013.27838", "Woebbecke et al. 1995: excess green"),
    ("https://doi.org/10.1080/10106040108542184", "Louhaichi et al. 2001: GLI"),
    ("https://doi.org/10.1016/S0034-4257(01)00289-9", "Gitelson et al. 2002: VARI"),
    ("https://doi.org/10.3390/rs2102369", "Motohka et al. 2010: green-red index above 0"),
    ("https://doi.org/10.1016/j.compag.2008.03.009", "Meyer and Neto 2008: ExG - ExR above 0"),
)

PROPERTIES = {
    "description": (
        "Green (vegetation: trees, shrubs, grass) and other from published visible-band "
        "indices, pixel by pixel, for imagery without near infrared such as an orthophoto. "
        "No trained weights, no fitted thresholds, no claim of accuracy."
    ),
    "mlm:architecture": "Rule set (sum of clipped index memberships)",
    "mlm:input": describe_inputs(
        MODEL,
        "Digital numbers 0 to 255 as in the image file.",
        "1 where the band holds a measurement, 0 where it is missing; a missing value is not "
        "looked at.",
    ),
    "mlm:output": describe_output(CLASSES),
    "bands": [
        {"name": RED, "description": "Red, 8 bit", "unit": "1"},
        {"name": GREEN, "description": "Green, 8 bit", "unit": "1"},
        {"name": BLUE, "description": "Blue, 8 bit", "unit": "1"},
    ],
    "mapper:required": [RED, GREEN, BLUE],
    "mapper:data_type": "uint8",
    "mapper:units": dict.fromkeys([RED, GREEN, BLUE], "digital number"),
}

RANGES = dict.fromkeys([RED, GREEN, BLUE], (0.0, 255.0))

if __name__ == "__main__":
    write_model(FOLDER, MODEL, PROPERTIES, SOURCES, RANGES)
