"""The ledger: what is done. Files on disk say nothing; a step is done when it is written here.

Append-only segments of JSON lines, each line with its own checksum, written by the driver
alone. A damaged tail is dropped and its steps are done again.
"""

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from mapper.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file that a step wrote."""

    path: str
    """Relative to the run's folder."""
    size: int
    sha256: str
    name: str = ""
    """Of the array or product in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One finished step."""

    key: str
    digest: str
    """Hash of everything that the step's result depends on."""
    outputs: tuple[Output, ...] = ()
    components: Mapping[str, Any] = field(default_factory=dict)
    """What the digest was made from, to say later what changed."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the step found out."""
    seconds: float = 0.0


class Ledger:
    """Finished steps of a run's folder, by key and digest."""

    def __init__(self, folder: Path) -> None:
        """Read every segment; nothing is written before the first commit."""
        self._folder = folder
        self._entries: dict[tuple[str, str], Entry] = {}
        self._latest: dict[str, Entry] = {}
        self._file: FileIO | None = None
        self.dropped = 0
        """Damaged lines that were dropped on reading."""
        for path in sorted(folder.glob("*.jsonl")):
            for entry in self._read(path):
                self._remember(entry)

    def _read(self, path: Path) -> Iterator[Entry]:
        content = path.read_bytes()
        for line in content.split(b"\n"):
            if not line:
                continue
            entry = _parse(line)
            if entry is None:
                self.dropped += 1
                return
            yield entry

    def _remember(self, entry: Entry) -> None:
        self._entries[entry.key, entry.digest] = entry
        self._latest[entry.key] = entry

    def find(self, key: str, digest: str, root: Path) -> Entry | None:
        """The entry of a step that is done: same hash, every output there with its size."""
        entry = self._entries.get((key, digest))
        if entry is None:
            return None
        for output in entry.outputs:
            try:
                if (root / output.path).stat().st_size != output.size:
                    return None
            except OSError:
                return None
        return entry

    def entry(self, key: str, digest: str) -> Entry | None:
        """The entry of a step that was once done, whatever became of its outputs."""
        return self._entries.get((key, digest))

    def starting(self, prefix: str) -> Iterator[Entry]:
        """The newest entry of every step whose key begins so."""
        return (entry for key, entry in self._latest.items() if key.startswith(prefix))

    def latest(self, key: str) -> Entry | None:
        """The newest entry of a step, whatever its hash."""
        return self._latest.get(key)

    def commit(self, entry: Entry) -> None:
        """Append an entry and flush it to the disk. Raises: StoreError where the disk refuses."""
        line = _format(entry)
        try:
            if self._file is None:
                self._file = self._new_segment()
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, "no space left for a whole entry")
            os.fsync(self._file.fileno())
        except OSError as reason:
            raise StoreError(
                f"the ledger in {self._folder} could not be written ({reason}); free space and "
                "run again: what is in it stays done"
            ) from reason
        self._remember(entry)

    def _new_segment(self) -> FileIO:
        """A new file for each run, so that a damaged tail is never written after."""
        self._folder.mkdir(parents=True, exist_ok=True)
        last = max((int(p.stem) for p in self._folder.glob("*.jsonl")), default=0)
        # unbuffered: a line that did not fit is not tried again on closing
        return open(self._folder / f"{last + 1:06d}.jsonl", "xb", buffering=0)

    def compact(self, root: Path) -> int:
        """Write entries whose outputs are there into one segment, and drop the others.

        The new segment is complete before an old one goes; stopped in between, some entries are
        there twice, which says nothing else. Nothing else may write meanwhile.

        Returns: entries that are gone. Raises: StoreError where the disk refuses.
        """
        old = sorted(self._folder.glob("*.jsonl"))
        if not old:
            return 0
        kept = [e for e in self._entries.values() if self.find(e.key, e.digest, root)]
        number = max(int(path.stem) for path in old) + 1
        attempt = self._folder / f".{number:06d}.jsonl"
        try:
            with open(attempt, "wb") as file:
                file.writelines(map(_format, kept))
                file.flush()
                os.fsync(file.fileno())
            attempt.rename(self._folder / f"{number:06d}.jsonl")
            for path in old:
                path.unlink()
        except OSError as reason:
            raise StoreError(
                f"the ledger in {self._folder} could not be written ({reason}); free space"
            ) from reason
        return len(self._entries) - len(kept)

    def close(self) -> None:
        """Close the segment."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __len__(self) -> int:
        return len(self._entries)


def _format(entry: Entry) -> bytes:
    body = json.dumps(asdict(entry), sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _parse(line: bytes) -> Entry | None:
    """An entry; None where the line is cut off or altered."""
    try:
        checksum, body = line.split(b" ", 1)
        if int(checksum, 16) != zlib.crc32(body):
            return None
        fields = json.loads(body)
        outputs = tuple(Output(**o) for o in fields.pop("outputs"))
        return Entry(outputs=outputs, **fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
