"""Small files that appear whole or not at all."""

import hashlib
import json
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from mapper.errors import StoreError


def sha256_of(path: Path) -> str:
    """Hash of a file's content, whatever its size."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically. Raises: StoreError where the disk refuses."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically. Raises: StoreError where the disk refuses."""
    attempt = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(attempt, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(attempt, path)
    except OSError as reason:
        with suppress(OSError):
            attempt.unlink(missing_ok=True)
        raise StoreError(
            f"{path} could not be written ({reason}); free space and run again"
        ) from reason
