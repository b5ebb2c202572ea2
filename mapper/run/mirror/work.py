"""The work of a mirror: look, measure, copy, list; it goes on where it was stopped."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mapper.catalog.footprint import CELLS
from mapper.errors import MapperError, StoreError
from mapper.events import Event, Listener
from mapper.run.mirror.catalog import keep_item, mirrored_item, write_catalog
from mapper.run.mirror.files import (
    HeldFile,
    copy_asset,
    drop_asset,
    free_bytes,
    held_file,
    refusal_of,
    side_by_side,
    size_of,
    sweep,
)
from mapper.run.mirror.plan import Key, Wanted, needed_hrefs
from mapper.run.plan import CityPlan
from mapper.terms import Terms

RESERVE = 64 * 2**20
"""Bytes of the disk that stay free for the catalog's own files."""
Promised = dict[str, str]
"""Per unsigned address of a file, the checksum that an item promises; empty for none."""


@dataclass(slots=True, kw_only=True)
class MirrorWork:
    """The files of one mirror, as far as it has come."""

    to: Path
    jobs: int
    wanted: dict[Key, Wanted]
    listener: Listener
    files: dict[str, HeldFile] = field(default_factory=dict)
    """Per address, those that are right."""
    failures: dict[str, str] = field(default_factory=dict)
    """Per address, why it is not there."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Per address to copy; -1 where its host does not tell."""
    held: int = 0
    free: int = 0

    def fill(self, terms: Mapping[str, Terms]) -> None:
        """Copy what is missing; the catalog lists complete items before and after."""
        sweep(self.to)
        self.look(thorough=True)
        for href in self.missing:
            drop_asset(self.to, href)
        self._list(terms)
        self.measure()
        self._check_space()
        self._copy()
        self._list(terms)

    @property
    def promised(self) -> Promised:
        """Every file that is needed."""
        found: Promised = {}
        for one in self.wanted.values():
            for key, href in one.assets.items():
                promise = str(one.item["assets"][key].get("file:checksum") or "")
                found[href] = found.get(href) or promise
        return found

    @property
    def missing(self) -> Promised:
        """Files to copy."""
        left = self.promised
        return {h: p for h, p in left.items() if h not in self.files and h not in self.failures}

    def look(self, thorough: bool) -> None:
        """Find out which files are right, and which are not to be copied at all."""
        for one in self.wanted.values():
            for href in one.assets.values():
                reason = refusal_of(href, one.catalog)
                if reason:
                    self._fail(href, reason)
        promised = self.missing

        def held(href: str) -> HeldFile | None:
            return held_file(self.to, href, promised[href], thorough)

        for href, found in side_by_side(held, promised, self.jobs):
            if isinstance(found, HeldFile):
                self.files[href] = found
        self.held = len(self.files)

    def measure(self) -> None:
        """Ask hosts for the sizes of what is missing."""
        for href, size in side_by_side(size_of, self.missing, self.jobs):
            self.sizes[href] = size if isinstance(size, int) else -1
        self.free = free_bytes(self.to)

    @property
    def bytes_to_copy(self) -> int:
        """As far as hosts tell."""
        return sum(size for size in self.sizes.values() if size > 0)

    def _check_space(self) -> None:
        needed = self.bytes_to_copy + RESERVE
        if self.sizes and needed > self.free:
            raise StoreError(
                f"{self.to} has {self.free / 1e9:.2f} GB free, and the mirror takes at least "
                f"{needed / 1e9:.2f} GB more; free space or choose another --to"
            )

    def _copy(self) -> None:
        promised = self.missing
        total = len(promised)

        def copy(href: str) -> HeldFile:
            return copy_asset(self.to, href, promised[href])

        for number, (href, found) in enumerate(side_by_side(copy, promised, self.jobs), start=1):
            if isinstance(found, MapperError):
                self._fail(href, str(found))
                continue
            self.files[href] = found
            message = f"{number} of {total} files"
            event = Event(kind="step", stage="copy", state="done", message=message)
            self.listener(replace(event, done=number, total=total))

    def _fail(self, href: str, reason: str) -> None:
        if href not in self.failures:
            self.failures[href] = reason
            self.listener(Event(kind="warning", state="failed", message=reason))

    def _list(self, terms: Mapping[str, Terms]) -> None:
        for one in self.wanted.values():
            assets = one.assets
            if all(href in self.files for href in assets.values()):
                files = {key: self.files[href] for key, href in assets.items()}
                item = one.item
                if one.cells:
                    cells = {CELLS: sorted(one.cells)}
                    item = item | {"properties": item["properties"] | cells}
                known = terms.get(one.collection)
                keep_item(self.to, mirrored_item(item, one.collection, files, known))
        write_catalog(self.to, terms)

    def lacking(self, plan: CityPlan) -> list[str]:
        """Why files are missing that a city needs."""
        reasons = {}
        for composite in plan.request.recipe.composites:
            for item in plan.items.by_source.get(composite.name, ()):
                for href in needed_hrefs(item, composite.source):
                    if href in self.failures:
                        reasons[href] = self.failures[href]
        return [reasons[href] for href in sorted(reasons)]

    @property
    def copied(self) -> list[str]:
        """What this call copied."""
        return [href for href in self.sizes if href in self.files]

    @property
    def copy_bytes(self) -> int:
        """Copied; where nothing is copied yet, to copy."""
        if self.copied:
            return sum(self.files[href].size for href in self.copied)
        return self.bytes_to_copy
