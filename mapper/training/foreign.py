"""Weights in files of others: read without running anything that is in them."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from mapper.errors import ModelError

FileKind = Literal["checkpoint", "safetensors", "onnx", "torchscript"]
_HOLDERS = ("state_dict", "model", "model_state_dict")
"""Where training loops keep the weights of a network."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers put before every name."""
_TEACHERS = ("ema_model.", "imnet_model.")
"""Copies that domain adaptation keeps beside the network that it teaches."""
_NUMBERS = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "mmengine.logging.history_buffer.HistoryBuffer",
)
"""Scores and losses that training loops keep beside the weights: passed over, never made."""


class _PassedOver:
    """Stands in for a number beside the weights; takes whatever it is given and does nothing."""

    def __new__(cls, *given: object) -> "_PassedOver":
        """Nothing is kept."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Nothing is set."""


def kind_of(file: Path, shown: str) -> FileKind:
    """What a file is, by its content. Raises: ModelError where it is nothing that can be taken.

    Args:
        file: on disk.
        shown: what to call it in messages.
    """
    with file.open("rb") as stream:
        head = stream.read(16)
    page, archive = head.lstrip()[:1] == b"<", head[:4] == b"PK\x03\x04"
    if archive and zipfile.is_zipfile(file):
        return _kind_of_archive(file, shown)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size:
        return "safetensors"
    if head[:1] == b"\x80":
        return "checkpoint"
    if head[:1] == b"\x08" or (shown.endswith(".onnx") and not page):
        return "onnx"
    hint = "export the network as ONNX"
    if archive:
        hint = "it is an archive that is cut off: fetch it again"
    elif page:
        hint = "it is a web page: give the address of the file itself"
    raise ModelError(
        f"{shown} is neither a PyTorch checkpoint, nor safetensors, ONNX or TorchScript; {hint}"
    )


def _kind_of_archive(file: Path, shown: str) -> FileKind:
    with zipfile.ZipFile(file) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        return "torchscript"
    if "data.pkl" in names:
        return "checkpoint"
    raise ModelError(
        f"{shown} is an archive, but of neither weights nor TorchScript (of torch.export, "
        "perhaps); export the network as ONNX"
    )


def read_weights(file: Path, kind: FileKind, shown: str) -> dict[str, Tensor]:
    """The state of a network by name, without what wrappers put before the names.

    Raises: ModelError where reading would run code, or there are no weights.
    """
    stored = _safetensors(file, shown) if kind == "safetensors" else _checkpoint(file, shown)
    state: Any = stored
    for holder in _HOLDERS:
        if isinstance(stored.get(holder), Mapping):
            state = stored[holder]
            break
    found = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not found:
        few = ", ".join(sorted(map(str, stored))[:6])
        raise ModelError(f"{shown} holds no state dict (it has {few}); save one of the network")
    return _plain(found)


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as the network itself has them."""
    state = {n: t for n, t in state.items() if not n.startswith(_TEACHERS)} or state
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
                stripped = True
    return state


def _safetensors(file: Path, shown: str) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, OSError, ValueError) as reason:
        raise ModelError(
            f"{shown} is no safetensors file that can be read ({reason}); fetch it again"
        ) from reason


def _checkpoint(file: Path, shown: str) -> Mapping[Any, Any]:
    """What a pickle of weights holds; nothing that it names is called but what builds tensors."""
    import torch

    stand_ins: list[Any] = [(_PassedOver, name) for name in _NUMBERS]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            # how the file was pickled is nothing that a user could mend
            warnings.simplefilter("ignore")
            stored = torch.load(file, map_location="cpu", weights_only=True)
    # torch raises what zip files, pickles and keys raise
    except Exception as reason:
        raise ModelError(_refusal(shown, reason)) from reason
    if not isinstance(stored, Mapping):
        raise ModelError(
            f"{shown} holds {type(stored).__name__}, no weights by name; save the state dict"
        )
    return stored


def _refusal(shown: str, reason: Exception) -> str:
    said = str(reason)
    called = re.search(r"GLOBAL (\S+)", said)
    if called:
        return (
            f"{shown} is refused: reading it would run {called[1]}, and mapper runs nothing that "
            "comes in a file; where you trust it, load it yourself and save its state dict alone "
            "with safetensors.torch.save_file, or export the network as ONNX"
        )
    # torch wraps what went wrong in advice to run the file after all
    found = re.search(r"WeightsUnpickler error:\s*([^\n]+)", said) or re.match(r"([^\n]+)", said)
    text = found[1][:200] if found else type(reason).__name__
    return (
        f"{shown} is no checkpoint of weights that can be read ({text}); it may be cut "
        "off or hold more than weights: fetch it again, or save its state dict as safetensors"
    )
