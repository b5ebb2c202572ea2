"""What the folder of an adaptation to cities is for: one recipe, source and target.

A start that differs is refused, unless nothing was begun there. Areas and versions are noted as
they are chosen, so that cities may be added one by one.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mapper
from mapper.errors import StoreError, UsageError
from mapper.recipe import digest_of
from mapper.recipe.settings import train_section
from mapper.run.adapt.request import AdaptRequest, Kind
from mapper.run.layout import all_versions

SUMMARY = "adapt.json"
_LOCK = ".lock"


def claim_of(
    request: AdaptRequest, out: Path, kind: Kind, areas: Mapping[str, str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the folder says of itself, and how cities ended before.

    Args:
        request: the command line, settled.
        out: the folder.
        kind: of the target.
        areas: digests of the chosen areas by slug, where the target is a file of them.

    Raises: UsageError where the folder says something else; StoreError where it is damaged.
    """
    asked = _asked(request, kind)
    fingerprint = digest_of(asked)
    known = read_summary(out / SUMMARY)
    if known is None:
        check_free(out, (_LOCK,))
    elif not _goes_on(known, fingerprint, out):
        known = None
    before = dict((known or {}).get("chosen", {}))
    chosen = dict(areas) if kind == "areas" else _tokens(request.target)
    _check_same(kind, chosen, before, request, out)
    claim = {
        "fingerprint": fingerprint,
        "method": train_section(request.recipe).adapt.method,
        "software": {"mapper": mapper.__version__},
        **asked,
        "chosen": before | chosen,
    }
    return claim, list((known or {}).get("cities", []))


def _asked(request: AdaptRequest, kind: Kind) -> dict[str, Any]:
    recipe = request.recipe
    asked: dict[str, Any] = {
        "recipe": {
            "name": recipe.name,
            "resolution": recipe.resolution,
            "sha256": recipe.digest,
        },
        "train": train_section(recipe).model_dump(mode="json"),
        "source": _source_facts(request.source),
        "start": _start_digest(request.start),
        "kind": kind,
        "target": request.target.resolve().name,
        "together": request.together,
    }
    if kind == "areas":
        # as a hash: addresses of catalogs may hold keys
        asked["maps"] = digest_of([request.year, request.catalog, request.max_scenes])
    return asked


def _goes_on(known: Mapping[str, Any], fingerprint: str, out: Path) -> bool:
    """False where nothing was begun by what the folder says. Raises: UsageError."""
    if known.get("fingerprint") == fingerprint:
        return True
    if all(entry.name in (_LOCK, SUMMARY) for entry in out.iterdir()):
        return False
    raise UsageError(
        f"{out} holds another adaptation; its recipe, method, settings or data differ: name "
        "another folder"
    )


def _tokens(run: Path) -> dict[str, str]:
    """Of the versions of a run, by key: what tells one run from another."""
    found = ((version.key, version.state() or {}) for version in all_versions(run))
    return {key: str(state.get("token")) for key, state in found}


def _check_same(
    kind: Kind,
    chosen: Mapping[str, str],
    before: Mapping[str, str],
    request: AdaptRequest,
    out: Path,
) -> None:
    """Raise UsageError for areas that were others before, or a run of which no version is known."""
    common = [key for key in chosen if key in before]
    if kind == "areas":
        moved = [slug for slug in common if chosen[slug] != before[slug]]
        if moved:
            raise UsageError(
                f"{request.target} has another area for {', '.join(moved)} than {out} was begun "
                "with; name another --out"
            )
    elif before and not any(chosen[key] == before[key] for key in common):
        raise UsageError(
            f"{out} was begun for another run than {request.target}; name another --out"
        )


def check_free(out: Path, allowed: tuple[str, ...]) -> None:
    """Raise UsageError where a folder that says nothing of itself holds other things."""
    if out.exists() and (not out.is_dir() or any(e.name not in allowed for e in out.iterdir())):
        raise UsageError(f"{out} is not empty and holds no adaptation; name another folder")


def read_summary(path: Path) -> dict[str, Any] | None:
    """What a folder says of itself; None where it says nothing. Raises: StoreError if damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as reason:
        raise StoreError(f"{path} is damaged ({reason}); name another folder") from reason


def _source_facts(source: Path) -> dict[str, str]:
    """Name of the folder, and a hash of the names and sizes of its files."""
    files = sorted(p for p in source.rglob("*") if p.is_file() and not p.name.startswith("."))
    listed = [[str(p.relative_to(source)), p.stat().st_size] for p in files]
    digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return {"set": source.resolve().name, "digest": digest}


def _start_digest(start: Path | None) -> str | None:
    from mapper.training.weights import WEIGHTS, weights_digest

    found = weights_digest(start)
    if start is not None and found is None:
        raise UsageError(f"--from {start} holds no weights; give a training's folder or {WEIGHTS}")
    return found
