"""`mapper gc`: what nothing refers to, shown first and dropped when that is confirmed.

Versions are what refers. None is dropped unasked; with `keep`, the newest ones of each product
stay, and whatever was released last.
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mapper.errors import StoreError, UsageError
from mapper.run.layout import Version, all_versions
from mapper.run.ledger import Ledger
from mapper.run.lock import hold_folder
from mapper.run.manifest import shard_folders
from mapper.run.release import all_released
from mapper.store.shards import all_shards, unfinished_shards

_SETTLED_SECONDS = 3600.0
"""A leftover this old is nobody's: no step of a run that still goes on began so long ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What can be dropped from a run's folder."""

    versions: tuple[Version, ...]
    shards: tuple[Path, ...]
    """Folders of shards that no version that stays is made of."""
    leftovers: tuple[Path, ...]
    """Of killed runs."""
    size: int
    """Bytes that dropping all of it frees: a shard that a version links to frees none."""
    kept_because: str = ""
    """Why no shard can be dropped; empty where they can."""

    @property
    def empty(self) -> bool:
        """Nothing to drop."""
        return not (self.versions or self.shards or self.leftovers)


def find_garbage(root: Path, keep: int | None = None) -> Garbage:
    """Look a run's folder through; changes nothing.

    Args:
        root: what `run --out` named.
        keep: finished versions of each product that stay, the newest; None keeps all.

    Raises: UsageError where there was never a run.
    """
    if not (root / "cities").is_dir():
        raise UsageError(f"{root} is no folder of a run; give what --out named")
    known = list(all_versions(root))
    dropped = _too_old(known, keep) if keep is not None else []
    staying = [version for version in known if version not in dropped]
    living, reason = _living(staying)
    shards = () if reason else tuple(p for p in all_shards(root) if _name(root, p) not in living)
    leftovers = tuple(_leftovers(root))
    sizes = [_freed([version.path for version in dropped] + list(shards) + list(leftovers))]
    return Garbage(
        versions=tuple(dropped),
        shards=shards,
        leftovers=leftovers,
        size=sum(sizes),
        kept_because=reason,
    )


def drop_garbage(root: Path, keep: int | None = None) -> Garbage:
    """Drop what `find_garbage` finds, while nobody runs there.

    Versions go first, then shards, then lines of the ledger: stopped at any moment, what is left
    is whole. Raises: LockedError, UsageError, StoreError.
    """
    if not (root / "cities").is_dir():
        raise UsageError(f"{root} is no folder of a run; give what --out named")
    with hold_folder(root):
        found = find_garbage(root, keep)
        try:
            for version in found.versions:
                version.drop()
            for path in (*found.shards, *found.leftovers):
                _remove(path)
        except OSError as reason:
            raise StoreError(f"{root}: {reason}; what is left is whole, run it again") from reason
        Ledger(root / "ledger").compact(root)
    return found


def _too_old(known: Iterable[Version], keep: int) -> list[Version]:
    """Finished versions before the newest `keep` of their product; the released one stays."""
    if keep < 1:
        raise UsageError(f"--keep {keep}; one version stays at least")
    products: dict[tuple[str, str], list[Version]] = {}
    for version in known:
        if (version.state() or {}).get("finished"):
            products.setdefault((version.slug, version.product), []).append(version)
    root = next((v.root for versions in products.values() for v in versions), Path())
    staying = {version.key for version in all_released(root)} if products else set()
    return [
        version
        for versions in products.values()
        for version in versions[:-keep]
        if version.key not in staying
    ]


def _living(versions: Iterable[Version]) -> tuple[set[str], str]:
    """Folders of shards that versions are made of; or why that cannot be said."""
    found: set[str] = set()
    for version in versions:
        own = shard_folders(version)
        if own is None:
            state = version.state() or {}
            why = "does not note its shards" if state.get("finished") else "is not finished"
            return set(), f"{version.key} {why}"
        found |= own
    return found, ""


def _leftovers(root: Path) -> Iterator[Path]:
    """Attempts that were never renamed into place."""
    before = time.time() - _SETTLED_SECONDS
    others = ("cities/*/*/v*/.*", "ledger/.*")
    found = chain(unfinished_shards(root), *(sorted(root.glob(pattern)) for pattern in others))
    for path in found:
        # what is gone by now was somebody's
        with suppress(FileNotFoundError):
            if path.lstat().st_mtime < before:
                yield path


def _name(root: Path, path: Path) -> str:
    return str(path.relative_to(root))


def _freed(paths: Iterable[Path]) -> int:
    """Bytes of files all of whose names are dropped."""
    links: dict[tuple[int, int], int] = {}
    sizes: dict[tuple[int, int], tuple[int, int]] = {}
    for path in paths:
        for file in _files(path):
            facts = file.lstat()
            key = (facts.st_dev, facts.st_ino)
            links[key] = links.get(key, 0) + 1
            sizes[key] = (facts.st_size, facts.st_nlink)
    return sum(size for key, (size, names) in sizes.items() if links[key] >= names)


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir() or path.is_symlink():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (Path(folder) / name for name in names)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
