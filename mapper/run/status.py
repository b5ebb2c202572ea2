"""What is done, running and failed in a run's folder, read without disturbing it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapper.errors import UsageError
from mapper.run.layout import Version, all_versions
from mapper.run.lock import folder_is_held
from mapper.run.step import STAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStatus:
    """One version of one city's product."""

    city: str
    product: str
    version: int
    state: str
    """`finished`, `running`, `failed` or `stopped`."""
    stages: Mapping[str, Mapping[str, int]]
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderStatus:
    """A run's folder."""

    holder: str | None
    """Who runs in it; None where nobody does."""
    versions: tuple[VersionStatus, ...]


def folder_status(root: Path) -> FolderStatus:
    """Read the state of every version. Raises: UsageError where there was never a run."""
    if not (root / "cities").is_dir() and not (root / ".lock").exists():
        raise UsageError(f"{root} is no folder of a run; give what --out named")
    holder = folder_is_held(root)
    versions = tuple(_status(version, holder is not None) for version in all_versions(root))
    return FolderStatus(holder=holder, versions=versions)


def _status(version: Version, held: bool) -> VersionStatus:
    progress = _progress(version)
    failures, stages = tuple(progress.get("failures", ())), progress.get("stages", {})
    if (version.state() or {}).get("finished"):
        state = "finished"
    elif held:
        state = "running"
    else:
        state = "failed" if failures else "stopped"
    return VersionStatus(
        city=version.slug,
        product=version.product,
        version=version.number,
        state=state,
        stages={s: stages[s] for s in STAGES if s in stages},
        failures=failures if state != "finished" else (),
    )


def _progress(version: Version) -> dict[str, Any]:
    try:
        path = version.path / "progress.json"
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
