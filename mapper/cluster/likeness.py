"""Whether workers run what the driver runs: other versions give other pixels, or none."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import mapper

PACKAGES = (
    "dask",
    "distributed",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "pyproj",
    "rasterio",
    "scipy",
    "shapely",
    "torch",
    "zarr",
)
"""What results or the talk between processes depend on."""
_SHOWN = 4


@lru_cache(maxsize=1)
def software() -> Mapping[str, str]:
    """Versions of mapper, of Python and of the key packages that are there; called on workers."""
    own = {"mapper": mapper.__version__, "mapper's code": _code(), "python": _python()}
    return own | versions_of(PACKAGES)


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are there."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What a worker has otherwise, as lines `numpy 2.1.0 here, 2.0.2 there`."""
    names = sorted(here.keys() | there.keys())
    return [
        f"{name} {here.get(name, 'missing')} here, {there.get(name, 'missing')} there"
        for name in names
        if here.get(name) != there.get(name)
    ]


def told(found: Mapping[str, list[str]]) -> str:
    """The differences of some workers in one line; the first of them in full."""
    (worker, lines), *others = found.items()
    more = f" and {len(others)} more workers" if others else ""
    rest = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return f"{worker}{more}: {'; '.join(lines[:_SHOWN])}{rest}"


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _code() -> str:
    """Of every module of mapper: an installation from a checkout keeps its version for long."""
    digest = hashlib.sha256()
    root = Path(mapper.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
