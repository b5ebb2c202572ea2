"""`mapper predict`: images in, maps out, through the same engine as whole cities."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

import mapper
from mapper.errors import MapperError, PartlyDoneError, StoreError, UsageError
from mapper.events import Event, Listener, ignore
from mapper.inference.card import ModelCard, load_card
from mapper.inference.composition import Decision
from mapper.inference.devices import DeviceChoice, free_memory
from mapper.inference.engine import Engine, make_engine
from mapper.inference.memory import check_memory, pixel_bytes, predict_memory
from mapper.inference.outputs import MapArray, Strip, map_arrays
from mapper.inference.plan import halo_of
from mapper.inference.predict import predict_box, predict_rows
from mapper.inference.probe import ModelChoice, Wishes, choose
from mapper.product.cog import CogWriter, RasterSpec
from mapper.recipe import Predict
from mapper.run.images import ImageFile, ImageWishes, describe_image, image_source, list_images


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """The command line of `mapper predict`."""

    image: Path
    """One image, or a folder of them."""
    model: str
    out: Path
    settings: tuple[str, ...] = ()
    """`KEY=VALUE` of a recipe's predict section."""
    images: ImageWishes
    device: DeviceChoice = "auto"
    trust_model: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """How an image ended."""

    image: str
    state: str
    """`mapped`, `empty` where no pixel was data, or `failed`."""
    files: tuple[str, ...] = ()
    pixels: int = 0
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictReport:
    """How all images ended."""

    results: tuple[ImageResult, ...]
    plan: Mapping[str, Any] = field(default_factory=dict)
    """The inference plan of the last image."""

    def check(self) -> None:
        """Raise what the exit code says. Raises: PartlyDoneError, MapperError."""
        bad = [r for r in self.results if r.state == "failed"]
        if bad and len(bad) < len(self.results):
            names = ", ".join(r.image for r in bad)
            raise PartlyDoneError(f"{len(bad)} of {len(self.results)} images failed: {names}")
        if bad:
            raise MapperError(bad[0].reason)


def predict_images(options: PredictOptions, listener: Listener = ignore) -> PredictReport:
    """Map every image; all headers are checked before the first pixel is read.

    Raises: UsageError, ModelError, ImageError, ResourceError before anything is read.
    """
    card = load_card(options.model)
    wanted = parse_settings(options.settings)
    paths = list_images(options.image)
    images = [describe_image(path, card, options.images) for path in paths]
    if wanted.mode == "whole":
        images = [image.alone for image in images]
    _check_names(images, card, wanted, options.out)
    wishes = Wishes(predict=wanted, device=options.device, trust=options.trust_model)
    engines = _Engines(card, wishes)
    for image in images:
        engines.check(image)
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for number, image in enumerate(images, start=1):
        results.append(_predict_one(engines, image, options.out))
        listener(_event(results[-1], number, len(images)))
    return PredictReport(results=tuple(results), plan=engines.plan_of(images[-1]))


def parse_settings(settings: Sequence[str]) -> Predict:
    """`KEY=VALUE` pairs as a predict section. Raises: UsageError."""
    given: dict[str, Any] = {"threads": min(64, os.cpu_count() or 1)}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting!r} is not of the form KEY=VALUE, e.g. mode=blend")
        if key.strip() in ("over", "reduce"):
            raise UsageError(f"--set {setting!r}: a single image has no dates; leave it out")
        given[key.strip()] = value.strip()
    try:
        return Predict.model_validate(given)
    except ValidationError as reason:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in reason.errors())
        known = ", ".join(Predict.model_fields)
        raise UsageError(f"--set {problems}; keys are {known}") from reason


def whole_window(card: ModelCard, wanted: Predict, side: int) -> Predict:
    """One square window over an image of any shape, its longer side rounded up.

    Models that see a known distance get it as a margin all around.
    """
    multiple = int(card.window.get("multiple", 32))
    halo = 0 if card.global_context else halo_of(card)
    size = -(-(side + 2 * halo) // multiple) * multiple
    stride = size - 2 * halo
    return wanted.model_copy(
        update={"mode": "core", "size": size, "stride": stride, "batch": wanted.batch or 1}
    )


class _Engines:
    """One engine for each way in which images are stored."""

    def __init__(self, card: ModelCard, wishes: Wishes) -> None:
        self._card, self._wishes = card, wishes
        self._choices: dict[Any, ModelChoice] = {}

    def choice(self, image: ImageFile) -> ModelChoice:
        # by its words, since NaN as nodata equals nothing
        whole = self._wishes.predict.mode == "whole"
        key = repr(image.coding), max(image.pixels.shape) if whole else 0
        if key not in self._choices:
            wishes = self._wishes
            if whole:
                wishes = replace(wishes, predict=whole_window(self._card, wishes.predict, key[1]))
            self._choices[key] = choose(self._card, wishes, image.coding, _probes_file())
        return self._choices[key]

    def engine(self, image: ImageFile) -> Engine:
        choice = self.choice(image)
        return make_engine(choice.card, choice.plan, image.coding, choice.runtime)

    def plan_of(self, image: ImageFile) -> dict[str, Any]:
        plan = self.choice(image).plan
        return {**plan.to_dict(), "batch": plan.batch, "threads": plan.threads}

    def check(self, image: ImageFile) -> None:
        """Refuse what would not fit the memory."""
        choice, (height, width) = self.choice(image), image.pixels.shape
        needed = predict_memory(choice.card, choice.plan, image.coding, width)
        if image.chip:
            needed += height * width * pixel_bytes(choice.card, choice.plan.decision)
        check_memory(needed, free_memory(), f"{image.path}, {width} columns,")


def _probes_file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "mapper" / "probes.json"


def _check_names(images: list[ImageFile], card: ModelCard, wanted: Predict, out: Path) -> None:
    """Refuse to write two maps to one name, or a map over an image."""
    seen: dict[Path, Path] = {}
    inputs = {image.path.resolve() for image in images}
    decision = Decision(entropy=wanted.entropy, probabilities=wanted.probabilities)
    for image in images:
        for array in map_arrays(card, decision):
            target = (out / _name(image, card, array.name)).resolve()
            if target in seen:
                raise UsageError(f"{seen[target]} and {image.path} would both give {target.name}")
            if target in inputs:
                raise UsageError(f"{target} would be written over an image; choose another --out")
            seen[target] = image.path
            if image.chip and array.name == "classes":
                break


def _name(image: ImageFile, card: ModelCard, array: str) -> str:
    """Classes keep the image's name; other arrays are told apart by theirs."""
    suffix = ".png" if image.chip and card.head == "classes" else ".tif"
    if array in ("classes", "values") or (array == "probabilities" and card.head == "labels"):
        return f"{image.path.stem}{suffix}"
    return f"{image.path.stem}_{array}.tif"


def _predict_one(engines: _Engines, image: ImageFile, out: Path) -> ImageResult:
    began, name = time.perf_counter(), image.path.name
    try:
        engine = engines.engine(image)
        if image.chip and engine.card.head == "classes":
            files, empty = _write_chip(engine, image, out)
        else:
            files, empty = _write_rasters(engine, image, out)
    except MapperError as reason:
        return ImageResult(image=name, state="failed", reason=str(reason))
    height, width = image.pixels.shape
    return ImageResult(
        image=name,
        state="empty" if empty else "mapped",
        files=tuple(files),
        pixels=height * width,
        seconds=round(time.perf_counter() - began, 3),
        reason="no pixel of it is data" if empty else "",
    )


def _write_rasters(engine: Engine, image: ImageFile, out: Path) -> tuple[list[str], bool]:
    """Every array as a COG, row by row."""
    files, empty = [], True
    with ExitStack() as stack:
        source = stack.enter_context(image_source(image))
        writers = {}
        for array in engine.arrays:
            files.append(_name(image, engine.card, array.name))
            spec = _spec(engine, image, array)
            writers[array.name] = stack.enter_context(CogWriter(out / files[-1], spec))
        for strip in _strips(engine, source, image):
            for array in engine.arrays:
                writers[array.name].write(strip.box, strip.arrays[array.name])
            empty = empty and not _any_data(engine, strip)
    return files, empty


def _strips(engine: Engine, source: Any, image: ImageFile) -> Iterator[Strip]:
    strips = predict_rows(engine, source, image.pixels)
    try:
        yield from strips
    finally:
        strips.close()  # type: ignore[attr-defined]


def _any_data(engine: Engine, strip: Strip) -> bool:
    first = engine.arrays[0]
    values = strip.arrays[first.name]
    if np.isnan(first.nodata):
        return not bool(np.isnan(values).all())
    return bool((values != first.nodata).any())


def _spec(engine: Engine, image: ImageFile, array: MapArray) -> RasterSpec:
    table, classes = engine.card.classes, array.name == "classes"
    return RasterSpec(
        grid=image.place,
        pixels=image.pixels,
        dtype=array.dtype,
        nodata=array.nodata,
        overviews="MODE" if classes else "AVERAGE",
        descriptions=array.bands or (array.name,),
        colormap=table.colormap() if classes else None,
        category_names=table.category_names if classes else (),
        scale=array.scale,
        tags={
            "MODEL": engine.card.name,
            "MODEL_SHA256": engine.card.sha256,
            "INFERENCE": engine.plan.digest,
            "SOFTWARE": f"mapper {mapper.__version__}",
        },
        threads="ALL_CPUS",
    )


def _write_chip(engine: Engine, image: ImageFile, out: Path) -> tuple[list[str], bool]:
    """Classes as a PNG with a palette, of the image's name."""
    from PIL import Image

    with image_source(image) as source:
        strip = predict_box(engine, source, image.pixels)
    table = engine.card.classes
    palette = np.zeros((256, 3), dtype=np.uint8)
    for entry in table.classes:
        palette[entry.value] = entry.rgb
    picture = Image.fromarray(strip.arrays["classes"], mode="P")
    picture.putpalette(palette.tobytes())
    name = _name(image, engine.card, "classes")
    attempt = out / f".{name}.part"
    try:
        picture.save(attempt, format="PNG", transparency=table.nodata)
        os.replace(attempt, out / name)
    except OSError as reason:
        raise StoreError(f"{out / name} could not be written ({reason}); free space") from reason
    finally:
        attempt.unlink(missing_ok=True)
    return [name], not _any_data(engine, strip)


def _event(result: ImageResult, number: int, total: int) -> Event:
    good, why = result.state != "failed", f" ({result.reason})" if result.reason else ""
    return Event(
        kind="image",
        state="done" if good else "failed",
        done=number,
        total=total,
        stage="predict",
        message=f"{result.image}: {result.state}{why}",
        data={"files": list(result.files), "seconds": result.seconds},
    )
