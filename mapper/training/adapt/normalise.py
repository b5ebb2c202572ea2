"""The target in the source's scale: what training and prediction both use."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mapper.inference.scaling import Scaling, scaling_of
from mapper.recipe.training import Train
from mapper.training.adapt.statistics import BandStatistics, rescaled, short
from mapper.training.data.augment import BandKinds
from mapper.training.networks.build import source_channels


def matched(train: Train, source: BandStatistics, target: BandStatistics) -> Train:
    """A recipe whose scaling gives the target's bands the source's mean and deviation.

    `(v - mean_t) / deviation_t` of the target enters the network as
    `(v - mean_s) / deviation_s` of the source does, whatever scaling the source was trained with,
    so that weights of the source keep their meaning. Bands without light (radar, elevation)
    keep their scale: there a difference of means is a difference of places. So do bands without
    data, or of one value, on one of the sides.
    """
    bands = train.bands
    steps = train.scaling * (len(bands) if len(train.scaling) == 1 else 1)
    light = BandKinds.of(bands, source_channels(bands), bands).light
    found = [
        _matched(step, _moments(source, k), _moments(target, k))
        if light[k] and source.deviation[k] > 0 and target.deviation[k] > 0
        else step
        for k, step in enumerate(steps)
    ]
    return rescaled(train, found)


def _moments(statistics: BandStatistics, band: int) -> tuple[float, float]:
    return statistics.mean[band], statistics.deviation[band]


def _matched(
    step: Mapping[str, Any] | None, source: tuple[float, float], target: tuple[float, float]
) -> dict[str, Any]:
    """One entry of `value_scaling`, as a z-score, with the clip that there was."""
    known = scaling_of(step)
    ratio = source[1] / target[1]
    factor = known.factor * ratio
    offset = known.factor * (source[0] - target[0] * ratio) + known.offset
    entry: dict[str, Any] = {
        "type": "z-score",
        "mean": short(-offset / factor),
        "stddev": short(1 / factor),
    }
    return entry | _clip(known)


def _clip(known: Scaling) -> dict[str, Any]:
    if np.isinf(known.low) and np.isinf(known.high):
        return {}
    # JSON has no infinity
    bounds = np.nan_to_num([known.low, known.high], posinf=1e30, neginf=-1e30)
    return {"mapper:clip": [float(v) for v in bounds]}
