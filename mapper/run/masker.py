"""A mask by a model: the inference engine as what `mapper.cube.masks.Masker` asks for.

Chosen once per run by the driver, sent to workers as it is, loaded once per process.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mapper.area.grid import PixelBox
from mapper.cube.masks import Place, dilate
from mapper.cube.masks.morphology import half_widths
from mapper.errors import ModelError, RecipeError
from mapper.inference.card import ModelCard, load_card
from mapper.inference.coding import Coding, Layer
from mapper.inference.memory import predict_memory
from mapper.inference.predict import predict_box
from mapper.inference.probe import Wishes, choose
from mapper.inference.rows import Source as Pixels
from mapper.inference.rows import Stored
from mapper.recipe import ModelMask, Predict, Recipe, Sentinel2Source, digest_of
from mapper.run.maps import ModelUse

_running = threading.Lock()
"""Looks are read side by side and judged one after the other: a worker has one share of the
processor, and memory for the windows of one look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMasker:
    """Runs a model over the reflectances of one scene; a `mapper.cube.masks.Masker`.

    Windows lie on the lattice, so a pixel's answer depends on the ground within `reach` alone.
    """

    model: ModelUse
    bands: tuple[str, ...]
    """Common names of what it must be given, in the order of the model's channels."""
    invalid: tuple[int, ...]
    """Values of the classes that are not ground."""
    radius: float
    """Pixels by which these grow."""

    @property
    def reach(self) -> int:
        """Pixels beyond a box that `clear` of the box depends on, growth included."""
        return self.model.plan.context + len(half_widths(self.radius)) - 1

    @property
    def digest(self) -> str:
        """Of the model, how it is run, which classes are not ground and how far they grow."""
        plan = self.model.plan
        return digest_of(
            {
                "model": plan.model_digest,
                "inference": plan.digest,
                "bands": list(self.bands),
                "invalid": list(self.invalid),
                "radius": self.radius,
            }
        )

    def clear(self, bands: Mapping[str, np.ndarray], valid: np.ndarray, place: Place) -> np.ndarray:
        """True where a pixel is ground; see `mapper.cube.masks.Masker`.

        Not ground are pixels without data, those to which the model gives no class, those of an
        invalid class and what lies within the radius of these. Pixels nearer than `reach` to the
        border of the arrays are False too: what has a say in them may lie beyond.

        Raises: ModelError where the folder changed, this process would run something else than
            the plan says, or the output is not what the card says.
        """
        found = np.zeros(place.shape, dtype=bool)
        wanted = place.box.grow(-self.reach)
        if wanted.empty:
            return found
        judged = place.box.grow(-self.model.plan.context)
        classes, nodata = self._classes(self._pixels(bands, valid, place.box), judged)
        ground = classes != nodata
        ground &= ~dilate(np.isin(classes, self.invalid), self.radius)
        found[wanted.slices_in(place.box)] = ground[wanted.slices_in(judged)]
        return found

    def memory(self, side: int) -> int:
        """Bytes that judging one look at a square of so many pixels takes, its reach apart."""
        across = side + 2 * self.reach
        card, model = self.model.engine().card, self.model
        running = predict_memory(card, model.plan, model.coding, across, whole_rows=across)
        return running + across**2 * (4 * len(self.bands) + 4)

    def _classes(self, pixels: Pixels, box: PixelBox) -> tuple[np.ndarray, int]:
        """`(y, x)` uint8 class values over a box, and which of them is no class."""
        with _running:
            engine = self.model.engine()
            strip = predict_box(engine, pixels, box)
        return strip.arrays["classes"], engine.card.classes.nodata

    def _pixels(self, bands: Mapping[str, np.ndarray], valid: np.ndarray, box: PixelBox) -> Pixels:
        """Reflectances as the model's layer; NaN where there are none, and beyond the box."""
        (layer,) = self.model.coding.layers

        def read(wanted: PixelBox) -> Stored:
            planes, common = layer.empty(*wanted.shape), wanted.intersect(box)
            if not common.empty:
                mine = common.slices_in(box)
                good = valid[mine]
                for plane, name in zip(planes, self.bands, strict=True):
                    np.copyto(plane[common.slices_in(wanted)], bands[name][mine], where=good)
            return (planes,)

        return Pixels(read=read)


def masks_of(recipe: Recipe, trust: bool, kept: Path | None) -> dict[str, ModelMasker]:
    """Load and check the mask models of a recipe; reads no pixel.

    Args:
        recipe: whose Sentinel-2 sources may be masked by a model.
        trust: run models whose form is code.
        kept: file of earlier probes; None measures anew.

    Returns: a masker for each of the recipe's composites whose source asks for one, by name.

    Raises: RecipeError where the model cannot mask the source as the recipe says; ModelError.
    """
    made: dict[str, ModelMasker] = {}
    found: dict[str, ModelMasker] = {}
    for composite in recipe.composites:
        source = composite.source
        if isinstance(source, Sentinel2Source) and isinstance(source.mask, ModelMask):
            # the parts of a year share their source's mask
            name = composite.known_as or composite.name
            if name not in made:
                made[name] = make_masker(source, recipe.resolution, trust, kept)
            found[composite.name] = made[name]
    return found


def make_masker(
    source: Sentinel2Source, resolution: float, trust: bool = False, kept: Path | None = None
) -> ModelMasker:
    """The masker of a source whose mask is a model.

    It runs on the processor, whatever maps run on: another device would give other cubes. Windows
    are cropped to their cores unless the card fixes a stride, which is meant for its own mode.

    Args:
        source: its `mask` is a `ModelMask`.
        resolution: metres per pixel of the grid.
        trust: run a model whose form is code.
        kept: file of earlier probes; None measures anew.

    Raises: RecipeError where the source has no mask by a model, lacks a band that the model
        needs, or names a class that the model does not have; ModelError.
    """
    rule = source.mask
    if not isinstance(rule, ModelMask):
        raise RecipeError("the source is not masked by a model; write mask: {kind: model, ...}")
    card = load_card(rule.model)
    invalid, channels = _invalid_values(card, rule), _channels(card, source)
    bands = tuple(_common_name(card.bands[channel]) for channel in channels)
    coding = Coding(layers=(_layer(channels, bands),), bands=len(card.bands))
    predict = Predict(mode=None if "stride" in card.window else "core")
    choice = choose(card, Wishes(predict=predict, device="cpu", trust=trust), coding, kept)
    model = ModelUse(folder=choice.card.folder, plan=choice.plan, coding=coding, trust=trust)
    radius = rule.dilate / resolution
    return ModelMasker(model=model, bands=bands, invalid=invalid, radius=radius)


def _layer(channels: tuple[int, ...], bands: tuple[str, ...]) -> Layer:
    """One layer of reflectances as they are; NaN is no data."""
    return Layer(name="mask", dtype="float32", nodata=float("nan"), channels=channels, bands=bands)


def _invalid_values(card: ModelCard, rule: ModelMask) -> tuple[int, ...]:
    """Values of the classes that are not ground. Raises: ModelError, RecipeError."""
    if card.head != "classes":
        raise ModelError(
            f"model {card.name!r} yields {card.head}, a mask wants one class a pixel; choose a "
            "model with the head `classes`"
        )
    values = {c.name: c.value for c in card.classes.classes}
    unknown = sorted(set(rule.invalid) - set(values))
    if unknown:
        raise RecipeError(
            f"mask model {card.name!r} has no class {', '.join(unknown)}; its classes are "
            f"{', '.join(values)}"
        )
    if set(rule.invalid) == set(values):
        raise RecipeError(
            f"every class of mask model {card.name!r} is invalid, so nothing would be ground; "
            "leave the classes of ground out of mask.invalid"
        )
    return tuple(sorted(values[name] for name in set(rule.invalid)))


def _channels(card: ModelCard, source: Sentinel2Source) -> tuple[int, ...]:
    """Which of the model's channels the source fills.

    Those that it needs, and those it can use that every scene of the source has.

    Raises: RecipeError where one that it needs is not given, or they are of several sources.
    """
    known_as = {band.rpartition(":")[0] for band in card.required}
    if len(known_as) != 1:
        raise RecipeError(
            f"mask model {card.name!r} needs bands of {len(known_as)} sources "
            f"({', '.join(sorted(known_as)) or 'none named'}); a scene is judged by its own bands, "
            "so choose a model of one Sentinel-2 source"
        )
    absent = sorted({_common_name(b) for b in card.required} - set(source.bands.all))
    if absent:
        raise RecipeError(
            f"mask model {card.name!r} needs {', '.join(absent)}, the source gives "
            f"{', '.join(source.bands.all)}; add it to the source's bands or choose another model"
        )
    prefix = f"{known_as.pop()}:"
    return tuple(
        channel
        for channel, band in enumerate(card.bands)
        if band in card.required
        or (band.startswith(prefix) and _common_name(band) in source.bands.required)
    )


def _common_name(band: str) -> str:
    """`red` of `sentinel2:red`."""
    return band.rpartition(":")[2]
