"""The STAC catalog of a mirror: static, relative, and of complete items alone.

```
MIRROR/catalog.json
MIRROR/collections/<slug>/collection.json
MIRROR/collections/<slug>/items/<slug>.json    listed while its files are there
```
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mapper.catalog.bands import Item, flat_bbox
from mapper.catalog.footprint import CELLS
from mapper.catalog.items import SOURCE
from mapper.catalog.observation import moment
from mapper.errors import StoreError
from mapper.run.mirror.files import HeldFile, slug_of
from mapper.store.files import write_json
from mapper.terms import Terms
from mapper.transport.address import unsigned

CATALOG = "catalog.json"
ORIGIN = "mapper:origin"
"""Of an asset its unsigned address in the archive, of an item that of its own JSON."""
_COLLECTIONS = "collections"
_TO_ROOT = "../../.."
"""From the folder of an item's JSON to the mirror."""
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_REPLACED = re.compile(r"/(file|storage)/v")
_STORAGE = "storage:"
"""Fields on the archive's store, where a copy does not lie."""
_STAC = "1.1.0"


def mirrored_item(
    item: Item, collection: str, files: Mapping[str, HeldFile], terms: Terms | None = None
) -> Item:
    """An item as the mirror lists it: its own properties, and those assets that are at hand.

    Args:
        item: as the archive's search gave it.
        collection: under which it is listed.
        files: by key of the assets to keep.
        terms: of the collection, for an item that does not state its own: here its address no
            longer tells from which archive it is.

    Returns: with hrefs relative to its place, `file:checksum`, `file:size` and `mapper:origin` an
        asset, and the archive's own link as `via` and as property `mapper:origin`. The cells for
        which a scene limit chose it stay on it, so that a search here chooses the same.
    """
    assets = {key: _asset(item["assets"][key], held) for key, held in sorted(files.items())}
    properties = {
        k: v for k, v in item["properties"].items() if k != SOURCE and not k.startswith(_STORAGE)
    }
    if terms is not None and terms.license != "other" and "license" not in properties:
        stated = {"license": terms.license, "attribution": terms.attribution}
        properties |= {k: v for k, v in (stated | {"mapper:terms": terms.url}).items() if v}
    links = [
        _link("root", f"{_TO_ROOT}/{CATALOG}", "application/json"),
        _link("parent", "../collection.json", "application/json"),
        _link("collection", "../collection.json", "application/json"),
    ]
    origin = _origin_of(item)
    if origin:
        properties[ORIGIN] = origin
        links.append(_link("via", origin, "application/geo+json"))
    extensions = [e for e in item.get("stac_extensions") or [] if not _REPLACED.search(e)]
    kept = {k: v for k, v in item.items() if k not in {"links", "assets", "properties"}}
    return {
        "type": "Feature",
        "stac_version": _STAC,
        **kept,
        "stac_extensions": [*extensions, _FILE],
        "collection": collection,
        "properties": properties,
        "links": links,
        "assets": assets,
    }


def _origin_of(item: Item) -> str:
    """Unsigned link of an item in its archive; empty where that is a path of this machine."""
    known = item["properties"].get(ORIGIN)
    own = next((k.get("href") for k in item.get("links", []) if k.get("rel") == "self"), "")
    href = unsigned(str(known or own or ""))
    return href if "://" in href else ""


def _asset(asset: Mapping[str, Any], held: HeldFile) -> dict[str, Any]:
    dropped = {"alternate", "file:local_path", "file:header_size"}
    kept = {k: v for k, v in asset.items() if k not in dropped and not k.startswith(_STORAGE)}
    kept |= {
        "href": f"{_TO_ROOT}/{held.path}",
        "file:size": held.size,
        "file:checksum": held.checksum,
    }
    origin = unsigned(str(asset["href"]))
    if "://" in origin:
        kept.setdefault(ORIGIN, origin)
    return kept


def keep_item(root: Path, item: Item) -> None:
    """Put a complete item on disk; cells that another city chose it for stay on it."""
    path = item_path(root, str(item["collection"]), str(item["id"]))
    before = _read(path)
    cells = item["properties"].get(CELLS)
    if before and cells is not None:
        cells = sorted({*cells, *before["properties"].get(CELLS, [])})
        item = item | {"properties": item["properties"] | {CELLS: cells}}
    if item != before:
        write_json(path, item)


def item_path(root: Path, collection: str, identity: str) -> Path:
    """Where an item's JSON lies; names from items go through `slug_of`."""
    return root / _COLLECTIONS / slug_of(collection) / "items" / f"{slug_of(identity)}.json"


def write_catalog(root: Path, terms: Mapping[str, Terms]) -> int:
    """List every item on disk whose files are there, and none else.

    Args:
        root: the mirror.
        terms: of the collections.

    Returns: the number of items listed. Nothing is written where there is none, and no catalog.
    """
    listed, count = [], 0
    for folder in sorted((root / _COLLECTIONS).glob("*")):
        members = _complete(root, folder)
        if members:
            content = _collection(members, terms)
            _write_changed(folder / "collection.json", content)
            listed.append((str(content["id"]), folder.name))
            count += len(members)
    if listed or (root / CATALOG).exists():
        _write_changed(root / CATALOG, _root(listed))
    return count


def _complete(root: Path, folder: Path) -> dict[str, Item]:
    """Items of a collection by the name of their JSON."""
    found = {}
    for path in sorted((folder / "items").glob("*.json")):
        item = _read(path)
        if item and all(_is_there(path.parent, asset) for asset in item["assets"].values()):
            found[path.name] = item
    return found


def _is_there(folder: Path, asset: Mapping[str, Any]) -> bool:
    try:
        return bool((folder / asset["href"]).stat().st_size == asset["file:size"])
    except OSError:
        return False


def _collection(members: Mapping[str, Item], terms: Mapping[str, Terms]) -> dict[str, Any]:
    name = str(next(iter(members.values()))["collection"])
    known = terms.get(name) or Terms("other")
    boxes = [flat_bbox(item) for item in members.values() if item.get("bbox")]
    sides = list(zip(*boxes, strict=True)) or [(-180.0,), (-90.0,), (180.0,), (90.0,)]
    box = [min(sides[0]), min(sides[1]), max(sides[2]), max(sides[3])]
    times: list[str | None] = [*sorted(filter(None, map(moment, members.values())))] or [None]
    links = [
        _link("root", f"../../{CATALOG}", "application/json"),
        _link("parent", f"../../{CATALOG}", "application/json"),
    ]
    if known.url:
        links.append(_link("license", known.url, "text/html"))
    links += [_link("item", f"./items/{path}", "application/geo+json") for path in members]
    found: dict[str, Any] = {
        "type": "Collection",
        "stac_version": _STAC,
        "id": name,
        "description": f"What some cities need of {name}, copied file by file",
        "license": known.license,
        "extent": {"spatial": {"bbox": [box]}, "temporal": {"interval": [[times[0], times[-1]]]}},
        "links": links,
    }
    if known.attribution:
        found["providers"] = [{"name": known.attribution, "roles": ["licensor"]}]
    return found


def _root(collections: Iterable[tuple[str, str]]) -> dict[str, Any]:
    links = [_link("root", f"./{CATALOG}", "application/json")]
    links += [
        _link("child", f"./{_COLLECTIONS}/{folder}/collection.json", "application/json")
        for _, folder in sorted(collections)
    ]
    return {
        "type": "Catalog",
        "stac_version": _STAC,
        "id": "mapper-mirror",
        "title": "Mirror",
        "description": "Scenes that some cities need, copied for nodes without internet",
        "links": links,
    }


def _link(rel: str, href: str, kind: str) -> dict[str, str]:
    return {"rel": rel, "href": href, "type": kind}


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON file of the mirror; None where there is none. Raises: StoreError."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as reason:
        raise StoreError(f"{path} is damaged ({reason}); delete it and run again") from reason


def _write_changed(path: Path, content: dict[str, Any]) -> None:
    if not path.exists() or _read(path) != content:
        write_json(path, content)
