"""One model of several cities: what it is learned of, and the further processes that learn it.

```
OUT/together/target.json   the versions whose imagery it is adapted to, for good
```

Several devices learn it by as many processes, which Lightning starts by the same command line.
Only the first holds the folder, maps, writes and prints.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from mapper.errors import StoreError, UsageError
from mapper.run.layout import Version
from mapper.store.files import write_json

TOGETHER = "together"
"""Folder of the one model."""
_TARGET = "target.json"
_PATIENCE = 1.0
"""Seconds between looks."""


def check_learned(folder: Path, versions: Sequence[Version]) -> None:
    """Hold cities against those that a model is learned of. Raises: UsageError."""
    known = _learned(folder)
    keys = sorted(version.key for version in versions)
    if known is not None and known != keys:
        raise UsageError(
            f"{folder} was learned of {', '.join(known)}, and not of {', '.join(keys)}; name the "
            "same cities with --city, or another --out"
        )


def keep_learned(folder: Path, versions: Sequence[Version]) -> None:
    """Write down what a model is learned of. Raises: UsageError where it is something else."""
    check_learned(folder, versions)
    if _learned(folder) is None:
        write_json(folder / _TARGET, {"versions": sorted(version.key for version in versions)})


def wait_for_learned(folder: Path, run: Path) -> list[Version]:
    """What the first process learns of, as soon as it has mapped and written that down.

    Raises: StoreError where the first process ended before.
    """
    first = os.getppid()
    while (keys := _learned(folder)) is None:
        if os.getppid() != first:
            raise StoreError(f"{folder} never got its target: the first process ended; run again")
        time.sleep(_PATIENCE)
    return [_version_of(key, run) for key in keys]


def _version_of(key: str, run: Path) -> Version:
    slug, product, number = key.split("/")
    return Version(root=run, slug=slug, product=product, number=int(number[1:]))


def _learned(folder: Path) -> list[str] | None:
    path = folder / _TARGET
    try:
        return [str(key) for key in json.loads(path.read_text(encoding="utf-8"))["versions"]]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as reason:
        raise StoreError(f"{path} is damaged ({reason}); name another --out") from reason
