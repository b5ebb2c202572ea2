"""Terms of use of one city's map: of the scenes it is made of, and of the models that read them.

Per source the recipe's own words come first, then what is known of the archive's collection
(`mapper/catalog/archives.py`), then what the frozen items state, else `other`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from mapper.catalog import archives
from mapper.catalog.archives import described_terms, terms_of
from mapper.catalog.bands import Item, own_address
from mapper.catalog.items import ItemTable
from mapper.catalog.observation import moment
from mapper.inference.card import ModelCard, load_card
from mapper.product.item import Credits
from mapper.recipe import ModelMask, Recipe, Source
from mapper.terms import Named, Terms, combine, license_of
from mapper.transport.address import unsigned

_OWNERS = {
    archives.SENTINEL: "European Union, Copernicus programme",
    archives.DEM_30: "DLR e.V. and Airbus Defence and Space GmbH",
    archives.DEM_90: "DLR e.V. and Airbus Defence and Space GmbH",
    archives.NASADEM: "NASA Jet Propulsion Laboratory",
    archives.NAIP: "USDA Farm Production and Conservation Business Center",
    archives.IO_LULC: "Impact Observatory, Microsoft and Esri",
    archives.WORLDCOVER: "ESA WorldCover consortium",
}
"""Who owns what the archives' table knows, for STAC's `providers`."""
_DEED = re.compile(r"creativecommons\.org/(?:licenses/(by[a-z-]*)|publicdomain/(zero))/(\d+\.\d+)")
_UNKNOWN = Terms("other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A source or model of a map: its terms, and who owns it."""

    name: str
    """Of the source in the recipe, or `model` and the model's name."""
    terms: Terms
    owner: str = ""
    """For `providers`; empty where nobody is named."""

    @property
    def named(self) -> Named:
        """As the rules take it."""
        return self.name, self.terms


def city_terms(recipe: Recipe, card: ModelCard, items: ItemTable) -> Credits:
    """Licence, attributions and notes of a city's map, from what it is made of and nothing else.

    A source without a scene in this city asks for nothing. Notices that want a year have those
    of the scenes.

    Args:
        recipe: its `license` and `use` are held against the terms.
        card: the model.
        items: what is read.

    Raises: RecipeError where the terms conflict with the recipe; it names source and remedy.
    """
    return _credits(recipe, [*_used_sources(recipe, items), *_used_models(recipe, card, items)])


def check_known_terms(recipe: Recipe, card: ModelCard) -> None:
    """Refuse before a search what no search can mend.

    Held against the recipe are the model and the sources that every city has, where the recipe
    gives their licence or their only collection is known. A conflict stays one whatever comes
    to it.

    Raises: RecipeError for a conflict.
    """
    found = [model_terms(card)]
    for name, source in recipe.sources.items():
        if source.optional:
            continue
        only = source.collections[0] if len(source.collections) == 1 else ""
        known = terms_of(source.catalog, only)
        if known or source.license:
            found.append(Owned(name=name, terms=_worded(source, known or _UNKNOWN)))
    _credits(recipe, found)


def source_terms(name: str, source: Source, items: Iterable[Item]) -> list[Owned]:
    """Terms of a source's scenes: one entry for each set of terms among them."""
    years: dict[Owned, set[int]] = {}
    for item in items:
        terms, owner = _scene_terms(source, item)
        one = Owned(name=name, terms=terms, owner=owner)
        years.setdefault(one, set()).update(_year(item))
    return [replace(one, terms=one.terms.dated(found)) for one, found in years.items()]


def model_terms(card: ModelCard) -> Owned:
    """Terms of a model, by its card: `license`, `mapper:attribution`, providers, licence link."""
    stated, owner = _stated(card.item)
    line = card.item["properties"].get("mapper:attribution") or stated.attribution
    terms = replace(stated, license=_spelled(card.license, stated.url), attribution=str(line))
    return Owned(name=f"model {card.name}", terms=terms.dated(()), owner=owner)


def _used_sources(recipe: Recipe, items: ItemTable) -> list[Owned]:
    found: dict[str, list[Item]] = {}
    for composite in recipe.composites:
        name = composite.known_as or composite.name
        found.setdefault(name, []).extend(items.by_source.get(composite.name, ()))
    return [
        one
        for name, scenes in found.items()
        for one in source_terms(name, recipe.sources[name], scenes)
    ]


def _used_models(recipe: Recipe, card: ModelCard, items: ItemTable) -> list[Owned]:
    """The model, and those that mask a source which has scenes."""
    used = [c.source for c in recipe.composites if items.by_source.get(c.name)]
    masks = [getattr(source, "mask", None) for source in used]
    models = dict.fromkeys(mask.model for mask in masks if isinstance(mask, ModelMask))
    return [model_terms(card), *map(_mask_terms, models)]


@lru_cache(maxsize=32)
def _mask_terms(model: str) -> Owned:
    """Kept, because loading a card reads the whole model for its checksum."""
    return model_terms(load_card(model))


def _scene_terms(source: Source, item: Item) -> tuple[Terms, str]:
    """Terms and owner of one scene."""
    known = _known_terms(source, item)
    stated, owner = (known, _OWNERS.get(known, "")) if known else _stated(item)
    terms = _worded(source, stated)
    credited = "" if source.attribution else owner
    return terms, credited or terms.dated(()).attribution


def _known_terms(source: Source, item: Item) -> Terms | None:
    """What the archives' table says; of a copy, by the address that its item calls its own."""
    only = source.collections[0] if len(source.collections) == 1 else ""
    collection = str(item.get("collection") or only)
    return terms_of(source.catalog, collection) or terms_of(own_address(item), collection)


def _worded(source: Source, terms: Terms) -> Terms:
    """The terms with the recipe's own words in place of those it gives."""
    url = unsigned(source.terms_url or terms.url)
    return replace(
        terms,
        license=_spelled(source.license or terms.license, url if source.license else ""),
        attribution=source.attribution or terms.attribution,
        url=url,
    )


def _stated(item: Mapping[str, Any]) -> tuple[Terms, str]:
    """What an item says of its terms and owners."""
    properties = item["properties"]
    providers = [p for p in properties.get("providers") or [] if isinstance(p, Mapping)]
    fields = {"license": properties.get("license"), "providers": providers}
    terms = described_terms(fields | {"links": item.get("links")})
    address = properties.get("mapper:terms") or terms.url
    url = unsigned(address) if isinstance(address, str) else ""
    line = str(properties.get("attribution") or terms.attribution)
    license = _spelled(terms.license, url)
    return replace(terms, license=license, attribution=line, url=url), terms.attribution


def _spelled(license: str, url: str) -> str:
    """A licence as the table has it: `CC BY 4.0` and the address of a deed are read too."""
    text = re.sub(r"[\s_]+", "-", license.strip()) or "other"
    deed = _DEED.search(text) or (None if license_of(text).known else _DEED.search(url))
    if deed is None:
        return text
    kind, zero, version = deed.groups()
    return f"CC0-{version}" if zero else f"CC-{kind.strip('-').upper()}-{version}"


def _year(item: Item) -> set[int]:
    """Of a scene; empty where it has no date."""
    year = moment(item)[:4]
    undated = item["properties"].get("mapper:undated")
    return {int(year)} if year.isdecimal() and not undated else set()


def _credits(recipe: Recipe, used: list[Owned]) -> Credits:
    """What follows from the terms, for the item. Raises: RecipeError."""
    made = combine([one.named for one in used], recipe.license, recipe.use)
    owners = {one.owner: one.terms.url for one in reversed(used) if one.owner}
    return Credits(
        license=made.license,
        use=recipe.use,
        attributions=made.attributions,
        notes=made.notes,
        obligations=tuple(sorted(made.obligations)),
        terms=tuple(
            {"name": one.name}
            | {k: v for k in ("license", "attribution", "url") if (v := getattr(one.terms, k))}
            for one in used
        ),
        owners=dict(sorted(owners.items())),
    )
