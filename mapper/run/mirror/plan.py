"""What a mirror needs: items of all cities, each once, and what a run reads of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mapper.catalog.bands import SENTINEL2_NUMBERS, Item, find_band
from mapper.catalog.footprint import CELLS
from mapper.cube.inspect import bands_to_read
from mapper.errors import UsageError
from mapper.recipe import Recipe, Sentinel2Source, Source
from mapper.run.plan import CityPlan
from mapper.transport.address import redact, unsigned


@dataclass(slots=True, kw_only=True)
class Wanted:
    """One item of the mirror to be."""

    item: Item
    collection: str
    catalog: str
    """Where it was found."""
    hrefs: set[str] = field(default_factory=set)
    """Unsigned addresses of what is read of it."""
    cells: set[str] = field(default_factory=set)
    """For which a scene limit chose it."""

    @property
    def assets(self) -> dict[str, str]:
        """Unsigned addresses by key, of all assets that lead to what is read."""
        hrefs = {k: unsigned(str(a.get("href", ""))) for k, a in self.item["assets"].items()}
        return {key: href for key, href in hrefs.items() if href in self.hrefs}


Key = tuple[str, str]
"""Collection and id of an item."""


def wanted_items(plans: Sequence[CityPlan]) -> dict[Key, Wanted]:
    """Every item that the cities use, once, with the addresses of all that a run reads of it.

    Raises: UsageError where two catalogs would give items to one collection of the mirror.
    """
    found: dict[Key, Wanted] = {}
    catalogs: dict[str, str] = {}
    for plan in plans:
        for composite in plan.request.recipe.composites:
            source = composite.source
            for item in plan.items.by_source.get(composite.name, ()):
                collection = collection_of(item, source)
                if catalogs.setdefault(collection, source.catalog) != source.catalog:
                    raise UsageError(
                        f"collection {collection!r} is read from two catalogs, "
                        f"{unsigned(catalogs[collection])} and {unsigned(source.catalog)}, and "
                        "one mirror cannot tell them apart; name one of them in the recipe"
                    )
                kept = found.setdefault(
                    (collection, str(item["id"])),
                    Wanted(item=item, collection=collection, catalog=source.catalog),
                )
                kept.hrefs |= needed_hrefs(item, source)
                kept.cells |= set(item["properties"].get(CELLS) or ())
    return found


def needed_hrefs(item: Item, source: Source) -> set[str]:
    """Unsigned addresses of all that a run reads of an item: bands, masks, and what the look at
    its pixels reads, which takes every reflectance band that there is.
    """
    names = bands_to_read(source)
    if isinstance(source, Sentinel2Source):
        names = [*names, *SENTINEL2_NUMBERS]
    return {band.href for name in names if (band := find_band(item, name)) is not None}


def collection_of(item: Item, source: Source) -> str:
    """Under which collection the source will find an item again.

    Items of a folder name none, and a source finds them under whichever it asks for first.
    """
    own = str(item.get("collection") or "")
    return own if own in source.collections else source.collections[0]


def tile_refusal(address: str) -> str:
    """Why the tiles of a service are not copied."""
    return (
        f"{redact(unsigned(address))} is a tile service: its operator's permission is for reading "
        "maps from it, not for passing on copies; ask for the imagery as files, or leave the "
        "source out of the recipe"
    )


def check_sources(recipe: Recipe) -> None:
    """Refuse before a search what no mirror can hold.

    Raises: UsageError where a source is a tile service, or names no collection.
    """
    for name, source in recipe.sources.items():
        service = getattr(source, "tiles", None)
        if service is not None:
            raise UsageError(f"source {name!r}: {tile_refusal(service.url)}")
        if not source.collections:
            raise UsageError(
                f"source {name!r} names no collection, and a mirror is searched by collection; "
                f"write `collections: [{name}]` into the recipe, for run and mirror alike"
            )
