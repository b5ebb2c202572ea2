"""A model folder with one more form: 16 bit, 8 bit, or compiled; each held against float32."""

import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mapper.errors import ModelError, StoreError, UsageError
from mapper.inference.artifact import Artifact, Precision, check_trust, remember_export
from mapper.inference.card import ModelCard, load_card
from mapper.inference.folder import (
    Opening,
    add_asset,
    open_unchecked,
    store_reference,
    write_file,
)
from mapper.inference.parity import disagreement, read_reference
from mapper.inference.runtime import Runtime

Target = Literal["float16", "bfloat16", "int8", "torch-export", "aotinductor"]
TARGETS: tuple[Target, ...] = get_args(Target)
LEAST_TOLERANCE = 0.005
"""Share of labels that another precision may change, at least."""
_FLOAT32 = 1e-4
_HELD_OUT = 4
"""Every so manieth window is measured on and not calibrated with."""

Windows = Sequence[tuple[np.ndarray, np.ndarray]]
"""Scaled image and validity `(1, band, y, x)` float32, of real pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A form that was added, and how far it is from float32."""

    name: str
    """Asset key."""
    bytes_before: int
    bytes_after: int
    windows: int
    """Real windows it was measured on; 0 where there were none."""
    disagreement: dict[str, float]
    """`relative` and `changed`, on real windows where there are any, else on the reference."""
    reference: dict[str, float]
    """The same on the reference input, which is noise: often harder than real pixels."""
    tolerance: dict[str, float]


def convert_model(
    card: ModelCard, target: Target, out: Path, windows: Windows, how: Opening
) -> Converted:
    """Write a copy of a model folder with one more form.

    Args:
        card: of the model; its first form that fits is converted.
        target: precision or form.
        out: folder that is not there yet.
        windows: real pixels, which int8 needs; a quarter is held out to measure on.
        how: threads and trust.

    Raises: UsageError, ModelError where the model has no form to convert.
    """
    if out.exists():
        raise UsageError(f"{out} is there already; name a folder that is not")
    source = _source(card, target)
    check_trust(source, load_card(str(card.folder), source.name).sha256, how.trust)
    if target == "int8" and len(windows) < 2:
        raise UsageError("int8 is calibrated on real pixels: give --calibrate images or cube.zarr")
    attempt = out.resolve().with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        shutil.copytree(
            card.folder, attempt, ignore=shutil.ignore_patterns(".*", "__pycache__", "build.py")
        )
        found = _added(load_card(str(attempt), source.name), target, windows, how)
        attempt.rename(out)
    except OSError as reason:
        raise StoreError(f"{out} could not be written ({reason}); free space") from reason
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return found


def _source(card: ModelCard, target: Target) -> Artifact:
    """The form to convert. Raises: ModelError with the reason why there is none."""
    wanted: dict[Target, tuple[tuple[str, ...], str]] = {
        "float16": (("onnx", "torch-export"), ""),
        "int8": (("onnx",), "; export it as ONNX"),
        "bfloat16": (
            ("torch-export",),
            ": ONNX Runtime has no bfloat16 convolution on CPUs; use float16, or add a form "
            "written by torch.export.save",
        ),
        "torch-export": (
            (),
            ": no graph can be turned back into a program; write it with torch.export.save from "
            "the network's own code, and name it as one more asset",
        ),
        "aotinductor": (
            ("torch-export",),
            ": it is compiled from a .pt2 written by torch.export.save; add that form first",
        ),
    }
    forms, advice = wanted[target]
    for artifact in card.artifacts:
        if artifact.form in forms and artifact.precision == "float32":
            return artifact
    has = ", ".join(f"{a.form} {a.precision}" for a in card.artifacts)
    raise ModelError(f"model {card.name!r} ({has}) cannot become {target}{advice}")


def _added(card: ModelCard, target: Target, windows: Windows, how: Opening) -> Converted:
    """Write one more form into a folder of its own, measure it, and say so in its item."""
    if card.reference is None:
        card = store_reference(card, how)
    held = list(windows[_HELD_OUT - 1 :: _HELD_OUT]) or list(windows[-1:])
    kept = [w for i, w in enumerate(windows) if i % _HELD_OUT != _HELD_OUT - 1] or list(windows)
    path = _write(card, target, kept)
    precision: Precision = "float32" if target == "aotinductor" else target  # type: ignore[assignment]
    name = f"model-{target}"
    fields: dict[str, Any] = {
        "type": _TYPES[path.suffix],
        "title": f"{target}, converted from {card.artifact.path.name}",
        "roles": ["mlm:model"],
        "mapper:precision": precision,
    }
    if card.artifact.shape != (None, None):
        fields["mapper:shape"] = list(card.artifact.shape)
    add_asset(card.folder, name, path, fields)
    made = load_card(str(card.folder), name)
    remember_export(made.sha256)
    before, after = open_unchecked(card, how), open_unchecked(made, how)
    noise = _of_reference(made, after)
    found = _measured(made, (before, after), held) if held else noise
    tolerance = _tolerance(made, precision, (found, noise))
    fields |= {"mapper:tolerance": tolerance, "mapper:disagreement": found}
    add_asset(card.folder, name, path, fields)
    return Converted(
        name=name,
        bytes_before=card.artifact.path.stat().st_size,
        bytes_after=path.stat().st_size,
        windows=len(held),
        disagreement=found,
        reference=noise,
        tolerance=tolerance,
    )


_TYPES = {
    ".onnx": "application/octet-stream; framework=onnx; profile=onnx",
    ".pt2": "application/octet-stream; framework=pytorch",
}


def _of_reference(card: ModelCard, runtime: Runtime) -> dict[str, float]:
    image, valid, output = read_reference(card)
    return dict(disagreement(card, runtime.run(image, valid), output))


def _measured(
    card: ModelCard, runtimes: tuple[Runtime, Runtime], windows: Windows
) -> dict[str, float]:
    """How far the second runtime is from the first on real windows."""
    before, after = ([r.run(image, valid) for image, valid in windows] for r in runtimes)
    return dict(disagreement(card, np.concatenate(after), np.concatenate(before)))


def _tolerance(
    card: ModelCard, precision: Precision, found: tuple[dict[str, float], ...]
) -> dict[str, float]:
    """What the loader holds the form to; it does so on the reference, so both count.

    Raises: ModelError where a form of float32 gives other numbers.
    """
    if precision == "float32":
        worst = max(f["relative"] for f in found)
        if worst > _FLOAT32:
            raise ModelError(
                f"the compiled form of {card.name!r} is off by {worst:.3g} of the range, more than "
                f"{_FLOAT32:g}; run the form that it was made from"
            )
        return {"relative": _FLOAT32}
    # numbers have no labels that could change
    measure = "relative" if card.head == "values" else "changed"
    worst = max(f[measure] for f in found)
    return {measure: round(max(LEAST_TOLERANCE, 2 * worst), 6)}


def _write(card: ModelCard, target: Target, windows: Windows) -> Path:
    """The file of the new form."""
    source = card.artifact
    path = card.folder / f"{source.path.stem}-{target}{source.path.suffix}"
    writers: dict[str, Callable[[Path], None]] = {
        "float16": lambda to: _half(source, to),
        "int8": lambda to: _quantised(card, windows, to),
        "aotinductor": lambda to: _compiled(source, to),
    }
    if source.form == "torch-export" and target in ("float16", "bfloat16"):
        writers[target] = lambda to: _recast(source, target, to)
    try:
        with warnings.catch_warnings():
            # what the libraries say of their own deprecations is nothing that a user could mend
            warnings.simplefilter("ignore")
            write_file(path, writers[target])
    except (ModelError, StoreError):
        raise
    # each library has its own way of saying that it cannot
    except Exception as reason:
        said = str(reason).strip().splitlines() or [type(reason).__name__]
        raise ModelError(
            f"model {card.name!r} cannot be converted to {target} ({said[0][:300]}); keep the form "
            "that it has"
        ) from reason
    return path


def _half(source: Artifact, path: Path) -> None:
    """Weights and operators of an ONNX graph in float16; what enters and leaves stays float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(source.path), keep_io_types=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _quantised(card: ModelCard, windows: Windows, path: Path) -> None:
    """An ONNX graph with 8-bit weights and activations, each channel with a scale of its own."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain = path.with_name(f"{path.stem}.plain.onnx")
    try:
        # normalising layers are folded into convolutions first: what is left is quantised better
        quant_pre_process(card.artifact.path, plain, skip_symbolic_shape=True)
        quantize_static(
            plain,
            path,
            _reader(card, windows),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        plain.unlink(missing_ok=True)


def _reader(card: ModelCard, windows: Windows) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        for image, valid in windows:
            feed = {card.image_input: image}
            if card.validity_input:
                feed[card.validity_input] = valid
            yield feed

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """One real window after the other."""

        def __init__(self) -> None:
            self._feeds = feeds()

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    return Reader()


def _recast(source: Artifact, target: Target, path: Path) -> None:
    """A torch.export program with its weights in 16 bit, exported again for that input."""
    import torch

    program = _program(source)
    dtype = getattr(torch, target)
    module = program.module().to(dtype)
    given, names = program.example_inputs
    cast = tuple(g.to(dtype) if g.is_floating_point() else g for g in given)
    shapes = tuple(dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO) for _ in cast)
    torch.export.save(torch.export.export(module, cast, names, dynamic_shapes=shapes), path)


def _compiled(source: Artifact, path: Path) -> None:
    """Machine code for this processor. Takes a C++ compiler."""
    from torch._inductor import aoti_compile_and_package

    aoti_compile_and_package(_program(source), package_path=str(path))


def _program(source: Artifact) -> Any:
    import torch

    return torch.export.load(source.path)
