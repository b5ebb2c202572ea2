"""Files of a model folder that can be run: forms, precisions, checksums, and whom to trust."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mapper.errors import ModelError
from mapper.recipe import data_directory

Form = Literal["onnx", "torchscript", "torch-export", "aotinductor"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "bfloat16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One exported form of a model."""

    name: str
    """Key of its asset, e.g. `model` or `model-int8`."""
    path: Path
    form: Form
    precision: Precision
    shape: tuple[int | None, int | None]
    """Batch and window side that the file is made for; None where any will do."""
    size: int | None
    """Bytes by the card; None where it does not say."""
    checksum: str
    """SHA-256 by the card; empty where it does not say."""
    tolerance: Mapping[str, float]
    """How far it may be from the reference output: `relative` to the range of the logits, or
    `changed`, a share of labels. Empty where the card does not say."""
    disagreement: Mapping[str, float]
    """What was measured when it was exported."""

    def verified(self) -> str:
        """SHA-256 of the file. Raises: ModelError where it is not what the card describes."""
        try:
            content = self.path.read_bytes()
        except OSError as reason:
            raise ModelError(
                f"model file {self.path} cannot be read: {reason.strerror}"
            ) from reason
        found = hashlib.sha256(content).hexdigest()
        if self.size is not None and self.size != len(content):
            raise ModelError(
                f"model file {self.path} has {len(content)} bytes, its card says {self.size}: it "
                "is cut off or another file; fetch it again"
            )
        if self.checksum and self.checksum != found:
            raise ModelError(
                f"model file {self.path} is not the one that its card describes "
                f"(checksum 1220{found})"
            )
        return found


def artifacts_of(item: Mapping[str, Any], folder: Path) -> tuple[Artifact, ...]:
    """Every asset with the role `mlm:model`, in the order of the item.

    Raises: ModelError where there is none, or one lies outside the folder or has no known form.
    """
    found = [
        _artifact(name, asset, folder)
        for name, asset in item["assets"].items()
        if "mlm:model" in asset.get("roles", [])
    ]
    if not found:
        raise ModelError(f"model {item.get('id')!r} has no asset with the role mlm:model; add it")
    return tuple(found)


def _artifact(name: str, asset: Mapping[str, Any], folder: Path) -> Artifact:
    path = file_of(asset, folder)
    precision = asset.get("mapper:precision", "float32")
    if precision not in PRECISIONS:
        raise ModelError(f"{folder}: precision {precision!r}; use one of {', '.join(PRECISIONS)}")
    return Artifact(
        name=name,
        path=path,
        form=_form(path),
        precision=precision,
        shape=_shape(asset.get("mapper:shape", (None, None)), folder),
        size=asset.get("file:size"),
        checksum=str(asset.get("file:checksum", "")).removeprefix("1220"),
        tolerance=_shares(asset.get("mapper:tolerance", {}), folder),
        disagreement=_shares(asset.get("mapper:disagreement", {}), folder),
    )


def _shares(listed: Any, folder: Path) -> dict[str, float]:
    try:
        return {str(name): float(share) for name, share in dict(listed).items()}
    except (TypeError, ValueError) as reason:
        raise ModelError(
            f'{folder}: tolerance {listed!r}; write it like {{"relative": 0.0001}}'
        ) from reason


def _shape(listed: Any, folder: Path) -> tuple[int | None, int | None]:
    batch, side = listed
    if any(v is not None and (not isinstance(v, int) or v < 1) for v in (batch, side)):
        raise ModelError(f"{folder}: mapper:shape {listed}; give batch and side, or null")
    return batch, side


def file_of(asset: Mapping[str, Any], folder: Path) -> Path:
    """The file of an asset. Raises: ModelError where it lies outside the folder."""
    path = (folder / asset["href"]).resolve()
    if folder.resolve() not in path.parents:
        raise ModelError(f"{folder}: the model file {asset['href']!r} lies outside the folder")
    return path


def _form(path: Path) -> Form:
    match path.suffix:
        case ".onnx":
            return "onnx"
        case ".pt" | ".ts":
            return "torchscript"
        case ".pt2":
            return "aotinductor" if _is_compiled(path) else "torch-export"
    raise ModelError(
        f"model file {path.name} is neither .onnx, nor TorchScript (.pt), nor torch.export (.pt2)"
    )


def _is_compiled(path: Path) -> bool:
    """True where a .pt2 archive holds machine code."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/aotinductor/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def check_trust(artifact: Artifact, sha256: str, trust: bool) -> None:
    """Refuse to run code that was neither shipped nor exported here, unless told to.

    Raises: ModelError.
    """
    if artifact.form == "onnx" or trust:
        return
    shipped = data_directory("models").resolve()
    if shipped in artifact.path.parents or sha256 in _exported():
        return
    raise ModelError(
        f"model file {artifact.path.name} is {artifact.form}, which is code: it runs with "
        "--trust-model alone; an ONNX export needs no trust"
    )


def remember_export(sha256: str) -> None:
    """Note that a file was exported on this machine by this user, so that it runs here."""
    path = _exports_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="ascii") as file:
        file.write(f"{sha256}\n")


def _exported() -> set[str]:
    try:
        return set(_exports_file().read_text(encoding="ascii").split())
    except (OSError, UnicodeDecodeError):
        return set()


def _exports_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "mapper" / "exported-models"
