"""Which shards a version is made of: what `mapper gc` keeps, and `--why` compares with."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from mapper.errors import StoreError
from mapper.run.layout import Version
from mapper.run.ledger import Entry
from mapper.store.shards import shard_folder_of

_FILE = "shards.parquet"
_SCHEMA = pa.schema([("key", pa.string()), ("digest", pa.string()), ("path", pa.string())])


def keep_shards(version: Version, entries: Iterable[Entry]) -> None:
    """Write a version's steps, their digests and the folder of each. Raises: StoreError."""
    rows = sorted(
        {
            (entry.key, entry.digest, shard_folder_of(output.path))
            for entry in entries
            for output in entry.outputs
        }
    )
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)] or [
        pa.array([], pa.string())
    ] * 3
    path = version.path / _FILE
    attempt = path.with_name(f".{_FILE}")
    try:
        pq.write_table(pa.table(columns, schema=_SCHEMA), attempt, compression="zstd")
        attempt.replace(path)
    except OSError as reason:
        raise StoreError(
            f"{path} could not be written ({reason}); free space and run again"
        ) from reason


def shard_folders(version: Version) -> set[str] | None:
    """Folders of a version's shards, relative to the run's; None where they were not noted."""
    found = _read(version)
    return None if found is None else set(found["path"].to_pylist())


def step_digests(version: Version) -> dict[str, str] | None:
    """Digest of each step of a version, by ledger key; None where they were not noted."""
    found = _read(version)
    if found is None:
        return None
    return dict(zip(found["key"].to_pylist(), found["digest"].to_pylist(), strict=True))


def _read(version: Version) -> pa.Table | None:
    path = version.path / _FILE
    try:
        return pq.read_table(path, schema=_SCHEMA)
    except FileNotFoundError:
        return None
    except (pa.ArrowInvalid, OSError) as reason:
        raise StoreError(
            f"{path} is damaged ({reason}); run again with --refresh to make the next version"
        ) from reason
