"""Which version of a product is the latest: by its gates, or by a person who says so.

A finished version is a candidate. `latest.json` beside the versions names the one that was
released last, and a link `latest` leads to it where the file system has links; both are replaced
as a whole, after the item says by whom. Candidates and old releases stay reachable by number.
"""

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mapper.area.aoi import slugify
from mapper.errors import StoreError, UsageError
from mapper.recipe.gates import Gates
from mapper.run.gate import failed_gates, read_measures
from mapper.run.layout import Version, all_versions
from mapper.run.lock import hold_folder
from mapper.run.publish import read_item
from mapper.store.files import write_json

BY_GATES = "gates"
_POINTER = "latest.json"
_LINK = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Who released a version, when and why."""

    by: str
    at: str
    """UTC, ISO 8601."""
    note: str = ""
    failed: tuple[str, ...] = ()
    """Gates that it did not pass."""

    def to_dict(self) -> dict[str, Any]:
        """As an item has it."""
        found: dict[str, Any] = {"by": self.by, "at": self.at}
        if self.note:
            found["note"] = self.note
        if self.failed:
            found["failed"] = list(self.failed)
        return found


def released(root: Path, slug: str, product: str) -> Version | None:
    """The version that was released last; None where none was.

    In a folder of an earlier mapper, which knew no candidates, it is the newest finished one.
    """
    folder = root / "cities" / slug / product
    try:
        number = int(json.loads((folder / _POINTER).read_text(encoding="utf-8"))["version"])
    except FileNotFoundError:
        return _newest_of_old(root, slug, product)
    except (ValueError, KeyError, TypeError) as reason:
        raise StoreError(
            f"{folder / _POINTER} is damaged ({reason}); write it anew with `mapper release`"
        ) from reason
    return Version(root=root, slug=slug, product=product, number=number)


def _newest_of_old(root: Path, slug: str, product: str) -> Version | None:
    known = [v for v in all_versions(root) if (v.slug, v.product) == (slug, product)]
    old = [v for v in known if (s := v.state() or {}).get("finished") and "gates" not in s]
    return old[-1] if old else None


def all_released(root: Path) -> Iterator[Version]:
    """The released version of every city and product, by slug and product."""
    products = dict.fromkeys((v.slug, v.product) for v in all_versions(root))
    for slug, product in products:
        if (found := released(root, slug, product)) is not None:
            yield found


def settle(version: Version, gates: Gates) -> tuple[str, ...]:
    """Hold a finished version against its gates, and release it where it passes them all.

    Returns: the gates that it did not pass; it then stays a candidate.
    """
    last = released(version.root, version.slug, version.product)
    before = read_measures(last) if last is not None and last.published else None
    failed = failed_gates(gates, read_measures(version), before)
    version.note({"gates": list(failed)})
    if not failed:
        _put_out(version, Release(by=BY_GATES, at=_now()))
    return failed


def candidates(root: Path) -> list[Version]:
    """Finished versions that are newer than what is released, by slug and product."""
    found = []
    for version in all_versions(root):
        if not (version.state() or {}).get("finished"):
            continue
        last = released(root, version.slug, version.product)
        if last is None or version.number > last.number:
            found.append(version)
    return found


def waiting(root: Path) -> list[tuple[Version, tuple[str, ...]]]:
    """Candidates, each with the gates that it did not pass."""
    return [
        (version, tuple((version.state() or {}).get("gates", ()))) for version in candidates(root)
    ]


def chosen(
    root: Path, cities: Sequence[str] = (), product: str | None = None, number: int | None = None
) -> list[Version]:
    """What is meant by a command line: candidates, or the versions of a number.

    Raises: UsageError for a city that has none.
    """
    known = candidates(root) if number is None else list(all_versions(root))
    found = {
        (v.slug, v.product): v
        for v in known
        if (number in (None, v.number)) and (product in (None, v.product))
    }
    slugs = {slug for slug, _ in found}
    wanted = {slugify(name) for name in cities} or slugs
    if lost := sorted(wanted - slugs):
        raise UsageError(f"no version of {', '.join(lost)} is meant; there are {sorted(slugs)}")
    return [version for (slug, _), version in sorted(found.items()) if slug in wanted]


def release_all(versions: Sequence[Version], by: str, note: str) -> list[tuple[Version, Release]]:
    """Let a person release versions of one folder, whatever their gates said.

    Nothing is released unless all can be. Raises: UsageError where one is not finished, or name
    or note are missing; LockedError where a run holds the folder.
    """
    if not by.strip() or not note.strip():
        raise UsageError("a release needs --by NAME and --note TEXT: they stand in its item")
    with hold_folder(versions[0].root):
        for version in versions:
            if not ((version.state() or {}).get("finished") and version.published):
                raise UsageError(f"{version.key} is not finished; run again first")
        return [(version, _released_by(version, by, note)) for version in versions]


def _released_by(version: Version, by: str, note: str) -> Release:
    failed = tuple((version.state() or {}).get("gates", ()))
    made = Release(by=by.strip(), at=_now(), note=note.strip(), failed=failed)
    _put_out(version, made)
    return made


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _put_out(version: Version, made: Release) -> None:
    """Write the item, then the links of the last one, then the pointer: each of them whole.

    A release by gates leaves the item as it is, so that equal runs have equal items.
    """
    if made.by != BY_GATES:
        item = read_item(version)
        item["properties"]["mapper:release"] = made.to_dict()
        write_json(version.product_folder / "item.json", item)
    before = released(version.root, version.slug, version.product)
    if before is not None and before.number != version.number and before.published:
        _lead_on(before, version)
    folder = version.path.parent
    write_json(folder / _POINTER, {"version": version.number, "release": made.to_dict()})
    _link(folder, version.path.name)


def _lead_on(old: Version, new: Version) -> None:
    """Let an older item say what came after it."""
    item = read_item(old)
    href = os.path.relpath(new.product_folder / "item.json", old.product_folder)
    links = [each for each in item["links"] if each["rel"] not in _AFTER]
    links += [
        {"rel": rel, "href": href, "type": "application/geo+json", "title": f"v{new.number}"}
        for rel in _AFTER
    ]
    write_json(old.product_folder / "item.json", item | {"links": links})


_AFTER = ("successor-version", "latest-version")


def _link(folder: Path, name: str) -> None:
    """A symbolic link for people; `latest.json` is what counts."""
    attempt = folder / f".{_LINK}.{uuid.uuid4().hex}"
    with suppress(OSError, NotImplementedError):
        attempt.symlink_to(name)
        os.replace(attempt, folder / _LINK)
