"""Noise without state: every value is a hash of a seed and integer lattice coordinates.

So a rectangle rendered alone holds what the same rectangle holds inside a larger one.
"""

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
Field = Callable[[FloatArray, FloatArray], FloatArray]
"""A function of x and y in metres, evaluated element by element."""

LATTICE = 16
"""Node spacing in metres of fields that `upsample` evaluates coarsely."""


def derive(seed: int, label: str) -> int:
    """A 32-bit seed of its own for one purpose, so that two fields never correlate."""
    return zlib.crc32(f"{seed}/{label}".encode())


def hash32(x: NDArray[np.integer], y: NDArray[np.integer], seed: int) -> NDArray[np.uint32]:
    """32-bit hash of lattice coordinates (the mixer is C. Wellons' `lowbias32`)."""
    h = x.astype(np.uint32) * np.uint32(0x9E3779B1)
    h = h ^ (y.astype(np.uint32) * np.uint32(0x85EBCA77) + np.uint32(seed & 0xFFFFFFFF))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        h ^= h >> np.uint32(shift)
        h *= np.uint32(factor)
    h ^= h >> np.uint32(16)
    return h


def uniform(x: NDArray[np.integer], y: NDArray[np.integer], seed: int) -> NDArray[np.float32]:
    """Hash as float32 in [0, 1): 24 bits, so that the conversion is exact."""
    bits = hash32(x, y, seed) >> np.uint32(8)
    return bits.astype(np.float32) * np.float32(2.0**-24)


def value_noise(x: FloatArray, y: FloatArray, cell: float, seed: int) -> NDArray[np.float64]:
    """Smooth noise in [0, 1] with one random node per `cell` metres."""
    x, y = np.asarray(x, np.float64) / cell, np.asarray(y, np.float64) / cell
    i, j = np.floor(x), np.floor(y)
    s, t = x - i, y - j
    s, t = s * s * (3.0 - 2.0 * s), t * t * (3.0 - 2.0 * t)
    i, j = i.astype(np.int64), j.astype(np.int64)
    low = uniform(i, j, seed) * (1.0 - s) + uniform(i + 1, j, seed) * s
    high = uniform(i, j + 1, seed) * (1.0 - s) + uniform(i + 1, j + 1, seed) * s
    return low * (1.0 - t) + high * t


def fractal_noise(
    x: FloatArray, y: FloatArray, cell: float, seed: int, octaves: int
) -> NDArray[np.float64]:
    """Value noise summed over octaves of halving cell and weight, scaled back to [0, 1]."""
    total = np.zeros(np.broadcast(x, y).shape)
    weight = 1.0
    for octave in range(octaves):
        total += weight * value_noise(x, y, cell / 2**octave, seed + octave)
        weight /= 2.0
    return total / (2.0 - 2.0 * weight)


def upsample(field: Field, x: FloatArray, y: FloatArray) -> NDArray[np.float32]:
    """Evaluate a smooth field for each column `x` and row `y`, bilinear between nodes.

    The nodes lie on multiples of `LATTICE` metres whatever the window. Shape (len(y), len(x)).
    """
    i0, j0 = int(np.floor(x.min() / LATTICE)), int(np.floor(y.min() / LATTICE))
    i1, j1 = int(np.floor(x.max() / LATTICE)) + 2, int(np.floor(y.max() / LATTICE)) + 2
    nodes_x = np.arange(i0, i1, dtype=np.float64) * LATTICE
    nodes_y = np.arange(j0, j1, dtype=np.float64) * LATTICE
    nodes = field(nodes_x[None, :], nodes_y[:, None]).astype(np.float32)
    column = np.floor(x / LATTICE).astype(np.int64)
    row = np.floor(y / LATTICE).astype(np.int64)
    s = (x / LATTICE - column).astype(np.float32)
    t = (y / LATTICE - row).astype(np.float32)[:, None]
    left, right = nodes[:, column - i0], nodes[:, column - i0 + 1]
    rows = left + (right - left) * s
    low, high = rows[row - j0], rows[row - j0 + 1]
    result: NDArray[np.float32] = low + (high - low) * t
    return result


def smoothstep(value: FloatArray, low: float, high: float) -> NDArray[np.float32]:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return t * t * (3.0 - 2.0 * t)
