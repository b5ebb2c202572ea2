"""`mapper export`: weights to a model folder, every form held against the network itself."""

import shutil
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from mapper.errors import ModelError, StoreError, UsageError
from mapper.inference.artifact import remember_export
from mapper.inference.card import load_card
from mapper.inference.folder import REFERENCE, Opening, add_asset, open_unchecked, set_fields
from mapper.inference.parity import disagreement, read_reference, reference_input, write_reference
from mapper.inference.receptive import LIMIT, measure_field
from mapper.store.files import sha256_of, write_json, write_text
from mapper.training.card import (
    IMAGE,
    MODEL_FILES,
    OUTPUT,
    VALID,
    Facts,
    Format,
    model_asset,
    model_item,
    model_readme,
)
from mapper.training.weights import Trained

FORMATS: tuple[Format, ...] = get_args(Format)
OPSET = 17
_KEYS: dict[Format, str] = {
    "onnx": "model",
    "torchscript": "model-torchscript",
    "pt2": "model-pt2",
}
_TOLERANCE = 1e-4
"""Of the range of the logits, for float32."""
_STEPWISE_TOLERANCE = 0.001
"""Share of labels, for networks in which rounding can choose other points."""
_REFERENCE_SIDE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What a model folder is to hold."""

    out: Path
    name: str
    formats: tuple[Format, ...] = ("onnx",)
    field_limit: int = LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A model folder that was written."""

    folder: Path
    forms: dict[str, dict[str, float]]
    """Asset key to how far it is off the network: `relative` and `changed`."""
    receptive_field: int
    global_context: bool
    bytes: int


def export_model(trained: Trained, options: ExportOptions) -> Exported:
    """Write a model folder, whole or not at all.

    Raises: UsageError where the folder is there; ModelError where a form is off by more than its
        tolerance.
    """
    _check(options)
    attempt = options.out.resolve().with_name(f".{options.out.name}.{uuid.uuid4().hex}")
    try:
        attempt.mkdir(parents=True)
        found = _write(trained, options, attempt)
        attempt.rename(options.out)
    except OSError as reason:
        raise StoreError(f"{options.out} could not be written ({reason}); free space") from reason
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return found


def _check(options: ExportOptions) -> None:
    if options.out.exists():
        raise UsageError(f"{options.out} is there already; name a folder that is not")
    if not options.formats:
        raise UsageError(f"no format was asked for; use one of {', '.join(FORMATS)}")


def _write(trained: Trained, options: ExportOptions, folder: Path) -> Exported:
    network = trained.network.eval()
    side = _side(trained)
    facts = Facts(
        name=options.name,
        receptive_field=int(trained.train.window.get("size", side)),
        global_context=network.network.global_context,
        multiple=network.network.multiple,
    )
    write_text(folder / "README.md", model_readme(trained, facts))
    item = model_item(trained, facts)
    write_json(folder / "item.json", item)
    sample = _reference(trained, folder, side)
    _add_documents(folder)
    forms: dict[str, dict[str, float]] = {}
    for wanted in options.formats:
        key, path = _KEYS[wanted], folder / MODEL_FILES[wanted]
        _save(wanted, trained, sample, path)
        title = f"{wanted} of {trained.train.network.name}"
        fields = model_asset(wanted, title, trained.train.bands)
        add_asset(folder, key, path, fields)
        forms[key] = _held(trained, folder, key, fields)
    facts = _field(trained, folder, facts, options.field_limit)
    set_fields(
        folder,
        {
            "mapper:receptive_field": facts.receptive_field,
            "mapper:global_context": facts.global_context,
        },
    )
    return Exported(
        folder=options.out,
        forms=forms,
        receptive_field=facts.receptive_field,
        global_context=facts.global_context,
        bytes=sum(p.stat().st_size for p in folder.iterdir()),
    )


def _side(trained: Trained) -> int:
    """Of the reference: small, but a multiple of what the network needs."""
    multiple = trained.network.network.multiple
    return -(-_REFERENCE_SIDE // multiple) * multiple


def _reference(trained: Trained, folder: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Store what the network itself yields for a noisy input; returns that input."""
    import torch

    image, valid = reference_input(len(trained.train.bands), trained.train.fill, side)
    with torch.inference_mode():
        output = trained.network(torch.from_numpy(image), torch.from_numpy(valid)).numpy()
    if not np.isfinite(output).all():
        raise ModelError("the network yields NaN; its training went astray, train it anew")
    write_reference(folder / REFERENCE, image, valid, output)
    return image, valid


def _inputs(trained: Trained, sample: tuple[np.ndarray, np.ndarray], batch: int = 1) -> Any:
    import torch

    tensors = [torch.from_numpy(np.repeat(a, batch, axis=0)) for a in sample]
    return tuple(tensors if trained.train.needs_validity else tensors[:1])


def _save(
    wanted: Format, trained: Trained, sample: tuple[np.ndarray, np.ndarray], path: Path
) -> None:
    """One form. Raises: ModelError where PyTorch's exporter refuses."""
    writers = {"onnx": _save_onnx, "torchscript": _save_script, "pt2": _save_program}
    try:
        with warnings.catch_warnings():
            # deprecations of exporters and notes of tracers are nothing that a user could mend
            warnings.simplefilter("ignore")
            writers[wanted](trained, sample, path)
    except Exception as reason:  # exporters have no common root of what they raise
        said = str(reason).strip().splitlines() or [type(reason).__name__]
        raise ModelError(
            f"{trained.train.network.name} cannot be exported as {wanted}: {said[0][:300]}"
        ) from reason


def _save_onnx(trained: Trained, sample: tuple[np.ndarray, np.ndarray], path: Path) -> None:
    import torch

    names = [IMAGE, VALID][: 2 if trained.train.needs_validity else 1]
    free = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        trained.network,
        _inputs(trained, sample),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=names,
        output_names=[OUTPUT],
        dynamic_axes=dict.fromkeys((*names, OUTPUT), free),
    )


def _save_script(trained: Trained, sample: tuple[np.ndarray, np.ndarray], path: Path) -> None:
    import torch

    with torch.inference_mode():
        traced = torch.jit.trace(trained.network, _inputs(trained, sample), check_trace=False)
    torch.jit.save(traced, str(path))
    remember_export(sha256_of(path))


def _save_program(trained: Trained, sample: tuple[np.ndarray, np.ndarray], path: Path) -> None:
    import torch

    # a batch of one would be taken for a constant
    inputs = _inputs(trained, sample, batch=2)
    free = tuple(dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO) for _ in inputs)
    torch.export.save(torch.export.export(trained.network, inputs, dynamic_shapes=free), path)
    remember_export(sha256_of(path))


def _held(trained: Trained, folder: Path, key: str, fields: dict[str, Any]) -> dict[str, float]:
    """Hold a form against the network, at the reference and at another size and batch.

    Raises: ModelError where it is off by more than its tolerance at the reference. A form that
    is right there alone is kept for that shape alone.
    """
    stepwise = trained.network.network.stepwise
    limit = {"changed": _STEPWISE_TOLERANCE} if stepwise else {"relative": _TOLERANCE}
    card = load_card(str(folder), key)
    runtime = open_unchecked(card, Opening())
    image, valid, output = read_reference(card)
    found = dict(disagreement(card, runtime.run(image, valid), output))
    over = [m for m, allowed in limit.items() if not found[m] <= allowed]
    if over:
        raise ModelError(
            f"the {key} form of {card.name!r} is off the network by {found[over[0]]:.3g} "
            f"({over[0]}, {limit[over[0]]:g} is allowed); export another format"
        )
    shape = (None, None) if _fits_others(trained, card, runtime, limit) else (1, image.shape[2])
    fields |= {"mapper:tolerance": limit, "mapper:disagreement": found}
    if shape != (None, None):
        fields["mapper:shape"] = list(shape)
    add_asset(folder, key, card.artifact.path, fields)
    return found


def _fits_others(trained: Trained, card: Any, runtime: Any, limit: dict[str, float]) -> bool:
    """True where a form also gives the network's output for two images of another size."""
    import torch

    rng = np.random.default_rng(21)
    side = 3 * _side(trained) // 2 // trained.network.network.multiple
    side = max(1, side) * trained.network.network.multiple
    image = rng.normal(0, 1, (2, len(trained.train.bands), side, side)).astype(np.float32)
    valid = np.ones_like(image)
    with torch.inference_mode():
        wanted = trained.network(torch.from_numpy(image), torch.from_numpy(valid)).numpy()
    try:
        found = disagreement(card, runtime.run(image, valid), wanted)
    except ModelError:
        return False
    return all(found[m] <= allowed for m, allowed in limit.items())


def _add_documents(folder: Path) -> None:
    about = {"type": "application/x-npz", "title": "Input and output that every form must give"}
    add_asset(folder, "reference", folder / REFERENCE, {**about, "roles": ["mapper:reference"]})
    readme = {"type": "text/markdown", "title": "What it is, its scores and limits"}
    add_asset(folder, "readme", folder / "README.md", {**readme, "roles": ["metadata"]})


def _field(trained: Trained, folder: Path, facts: Facts, limit: int) -> Facts:
    """The receptive field: known for networks that pool over the window, else measured."""
    if facts.global_context:
        return facts
    card = load_card(str(folder))
    found = measure_field(card, open_unchecked(card, Opening()), limit)
    pixels = facts.receptive_field if found.global_context else found.pixels
    return replace(facts, receptive_field=pixels, global_context=found.global_context)


def export_formats(names: Sequence[str]) -> tuple[Format, ...]:
    """Formats by name, each once. Raises: UsageError."""
    strange = [name for name in names if name not in FORMATS]
    if strange:
        raise UsageError(f"format {strange[0]!r}; use one of {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(names))  # type: ignore[arg-type]
