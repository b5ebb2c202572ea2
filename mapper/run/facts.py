"""Where a map comes from: for its item to say, and for the digests of its steps."""

from collections.abc import Mapping
from typing import Any

from mapper.area.grid import TileKey
from mapper.catalog.bands import Item, cloud_cover, find_band, own_address
from mapper.catalog.observation import datatake, epsg_of, moment, orbit_state
from mapper.cube.inspect import Inspection, bands_to_read
from mapper.cube.masks import sun_azimuth
from mapper.product.item import ProductFacts, ProductLayer
from mapper.recipe import CloudMask, Source
from mapper.run.ledger import Entry
from mapper.run.plan import CityPlan, check_bands
from mapper.transport.address import unsigned

Inspections = Mapping[str, Mapping[str, Inspection]]
"""Per source and item id."""
Ingested = Mapping[tuple[str, TileKey], Entry]
"""Per source and tile."""


def product_facts(
    plan: CityPlan,
    inspections: Inspections,
    ingested: Ingested,
    layers: tuple[ProductLayer, ...] = (),
) -> ProductFacts:
    """Everything that the item of a finished city says."""
    request = plan.request
    return ProductFacts(
        item_id=f"{request.product}-{plan.area.slug}-v{plan.version.number}",
        title=f"{request.recipe.title}: {plan.area.name}",
        city=plan.area.name,
        country=plan.area.country,
        geometry=plan.area.to_geojson(),
        bbox=plan.area.bbox,
        interval=request.period.interval,
        version=plan.version.number,
        grid=plan.grid,
        pixels=plan.extent,
        classes=request.card.classes,
        credits=plan.terms,
        recipe={
            "name": request.recipe.name,
            "title": request.recipe.title,
            "sha256": request.recipe.digest,
        },
        model={
            "name": request.card.name,
            "license": request.card.license,
            "sha256": request.card.sha256,
            "inference": request.inference.to_dict(),
        },
        scenes=scene_facts(plan, inspections),
        missing=missing_modalities(plan, ingested),
        warnings=read_failures(inspections, ingested),
        corrections=[{"id": c.id, "class": c.title, **c.facts} for c in plan.corrections],
        layers=layers,
    )


def scene_facts(plan: CityPlan, inspections: Inspections) -> dict[str, list[dict[str, Any]]]:
    """Per source: id, time, link and offset verdict of every scene."""
    return {
        name: [_scene(item, inspections[name][item["id"]]) for item in items]
        for name, items in plan.items.by_source.items()
    }


def missing_modalities(plan: CityPlan, ingested: Ingested) -> list[str]:
    """Sources or single bands that the model could use and this city lacks."""
    request = plan.request
    not_given = check_bands(request.recipe, request.card)
    known = request.recipe.sources
    absent = {b if b.split(":")[0] in known else b.split(":")[0] for b in not_given}
    absent |= set(plan.missing_sources)
    for name in plan.items.by_source:
        lacking = [
            set(entry.facts["missing_bands"])
            for (part, _), entry in ingested.items()
            if part.partition("@")[0] == name and entry.facts["observations"]
        ]
        if lacking:
            absent |= {f"{name}:{band}" for band in set.intersection(*lacking)}
    return sorted(absent)


def read_failures(inspections: Inspections, ingested: Ingested) -> list[str]:
    """Scenes that were left out because they could not be read."""
    found = {message for entry in ingested.values() for message in entry.facts["failures"]}
    found |= {one.failure for kept in inspections.values() for one in kept.values()}
    return sorted(found - {""})


def _scene(item: Item, inspection: Inspection) -> dict[str, Any]:
    """A scene as the product's item lists it."""
    href = own_address(item)
    scene = {"id": item["id"], "datetime": moment(item)}
    if "://" in href:
        # a path of this machine would mean nothing elsewhere
        scene["href"] = unsigned(href)
    verdict = inspection.verdict
    if verdict is not None:
        scene["offset"] = verdict.offset
        scene["offset_basis"] = verdict.basis
        if verdict.contradiction:
            scene["offset_declared"] = verdict.declared
    if inspection.failure:
        scene["failure"] = inspection.failure
    return scene


def scene_components(item: Item, source: Source, inspection: Inspection) -> dict[str, Any]:
    """What of a scene decides the pixels of a tile."""
    bands = {}
    for name in bands_to_read(source):
        band = find_band(item, name)
        if band is not None:
            bands[name] = [band.href, band.index, band.scale, band.nodata]
    sun = {}
    if isinstance(getattr(source, "mask", None), CloudMask):
        # decides where shadows are looked for
        sun = {"sun": sun_azimuth(item)}
    return {
        **sun,
        "bands": bands,
        # what groups scenes into observations and puts one before another
        "order": [datatake(item), moment(item), epsg_of(item), orbit_state(item)],
        "cloud_cover": cloud_cover(item),
        "baseline": item["properties"].get("s2:processing_baseline"),
        **inspection.digest_fields,
    }
