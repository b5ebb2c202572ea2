"""Items held against the schemas of STAC's core and of their extensions."""

import json

from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

STAC = "https://stac-extensions.github.io"
DATA_TYPES = ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64", "other"]


def registry(archive):
    """Schemas at hand; the raster extension 1.1 is asked only for its list of data types."""
    read = {p.stem: json.loads(p.read_text()) for p in (archive / "schemas").glob("*.json")}
    types = {"properties": {"data_type": {"type": "string", "enum": DATA_TYPES}}}
    contents = get_local_schema_cache() | {
        f"{STAC}/classification/v1.1.0/schema.json": read["classification"],
        f"{STAC}/processing/v1.1.0/schema.json": read["processing"],
        f"{STAC}/raster/v1.1.0/schema.json": {"definitions": {"bands": {"items": types}}},
        f"{STAC}/mlm/v1.5.2/schema.json": read["mlm"],
        f"{STAC}/file/v2.1.0/schema.json": read["file"],
    }
    pairs = []
    for uri, schema in contents.items():
        bare = {k: v for k, v in schema.items() if k != "$id"}
        pairs.append((uri, Resource.from_contents(bare, default_specification=DRAFT7)))
    return Registry().with_resources(pairs)


def faults(card, archive):
    """What the schemas of the core and of every declared extension object to."""
    core = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
    schemas = registry(archive)
    found = []
    for uri in [core, *card["stac_extensions"]]:
        validator = Draft7Validator({"$ref": uri}, registry=schemas)
        found += [e.message for e in validator.iter_errors(card)]
    return found
