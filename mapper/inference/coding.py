"""How a model's channels are stored: what crosses its border are these bytes, not floats."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mapper.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Channels of a model that are stored in one array."""

    name: str
    dtype: str
    """Numpy name of the stored type, e.g. `uint16`."""
    scale: float = 1.0
    """Stored value times this, plus `offset`, is in physical units."""
    offset: float = 0.0
    nodata: float | None = None
    """Stored value without data, NaN included; None where every value is data."""
    channels: tuple[int, ...]
    """Their places among the model's bands."""
    bands: tuple[str, ...] = ()
    """Their names where they are stored."""

    def __post_init__(self) -> None:
        if not holds(self.dtype, self.nodata):
            # a value that cannot occur marks nothing
            object.__setattr__(self, "nodata", None)

    def valid(self, stored: np.ndarray) -> np.ndarray:
        """Which stored values are data, bool."""
        if self.nodata is None:
            return np.ones(stored.shape, dtype=bool)
        if np.isnan(self.nodata):
            return ~np.isnan(stored)
        return np.asarray(stored != np.array(self.nodata, dtype=self.dtype))

    def empty(self, height: int, width: int) -> np.ndarray:
        """Stored values of ground without data, `(band, y, x)`."""
        shape = (len(self.channels), height, width)
        return np.full(shape, 0 if self.nodata is None else self.nodata, dtype=self.dtype)


def holds(dtype: str, value: float | None) -> bool:
    """True where a stored type can hold a value, NaN included."""
    kind = np.dtype(dtype)
    if value is None or kind.kind == "f":
        return value is not None
    return value == value // 1 and np.iinfo(kind).min <= value <= np.iinfo(kind).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """All stored layers of a model; channels in none of them are missing everywhere."""

    layers: tuple[Layer, ...]
    bands: int
    """Channels of the model."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ModelError("no band of the model is stored; give it at least one source")
        names = [layer.name for layer in self.layers]
        if len(set(names)) < len(names):
            raise ModelError(f"two stored layers share a name: {sorted(names)}")

    def physical(self, stored: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Stored layers `(..., band, y, x)` to values in physical units and their validity.

        Returns: `(..., band, y, x)` float32, 0 where not valid, and bool.
        """
        lead, (height, width) = stored[0].shape[:-3], stored[0].shape[-2:]
        image = np.zeros((*lead, self.bands, height, width), dtype=np.float32)
        valid = np.zeros(image.shape, dtype=bool)
        for layer, values in zip(self.layers, stored, strict=True):
            places = list(layer.channels)
            good = layer.valid(values)
            image[..., places, :, :] = np.where(
                good,
                values.astype(np.float32) * np.float32(layer.scale) + np.float32(layer.offset),
                np.float32(0),
            )
            valid[..., places, :, :] = good
        return image, valid

    def usable(self, stored: Sequence[np.ndarray], required: Sequence[int]) -> np.ndarray:
        """Where every required channel is data, `(y, x)` bool, of layers `(band, y, x)`."""
        found = np.ones(stored[0].shape[-2:], dtype=bool)
        for layer, values in zip(self.layers, stored, strict=True):
            needed = [i for i, channel in enumerate(layer.channels) if channel in required]
            if layer.nodata is not None:
                for index in needed:
                    found &= layer.valid(values[index])
        known = {channel for layer in self.layers for channel in layer.channels}
        if set(required) - known:
            found[:] = False
        return found
