"""One run per folder: a lock that dies with its holder."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from mapper.errors import LockedError, StoreError

_TRIES = 5


@contextmanager
def hold_folder(root: Path) -> Iterator[None]:
    """Hold a run's folder. Raises: LockedError with the holder's name where another run does.

    The kernel lets go of the lock when the process ends, however it ends.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = open(root / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as reason:
        raise StoreError(f"{root} cannot be written ({reason.strerror}); choose --out") from reason
    with file:
        if not _locked(file):
            file.seek(0)
            raise LockedError(
                f"{root} is in use by {_holder(file.read())}; wait for it or choose --out"
            )
        _sign(file)
        yield


def _sign(file: TextIO) -> None:
    """Write down who holds the lock. Raises: StoreError where the disk refuses."""
    try:
        file.seek(0)
        file.truncate()
        json.dump(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            },
            file,
        )
        file.flush()
    except OSError as reason:
        raise StoreError(f"{file.name} could not be written ({reason}); free space") from reason


def _locked(file: TextIO) -> bool:
    """Take the lock; a glance by `mapper status` may hold it for a moment."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        else:
            return True
    return False


def folder_is_held(root: Path) -> str | None:
    """Who holds a run's folder; None where nobody does."""
    try:
        with open(root / ".lock", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _holder(file.read())
            return None
    except FileNotFoundError:
        return None


def _holder(text: str) -> str:
    try:
        known = json.loads(text)
        return f"process {known['pid']} on {known['host']} since {known['since']}"
    except (ValueError, KeyError):
        return "another run"
