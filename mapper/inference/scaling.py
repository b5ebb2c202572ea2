"""Value scalings of the MLM extension: every one is `clip(value * factor + offset)`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mapper.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What happens to the values of one band, in this order: factor, offset, clip."""

    factor: float = 1.0
    offset: float = 0.0
    low: float = -np.inf
    high: float = np.inf

    def after(self, scale: float, offset: float = 0.0) -> "Scaling":
        """The same for values that need a scale and an offset first."""
        return Scaling(
            factor=self.factor * scale,
            offset=self.factor * offset + self.offset,
            low=self.low,
            high=self.high,
        )


def scaling_of(step: Mapping[str, Any] | None) -> Scaling:
    """One entry of `value_scaling`; `mapper:clip` beside it, `[low, high]`, comes last.

    Raises: ModelError where it is of another kind or divides by zero; KeyError where it lacks
        a number.
    """
    if step is None:
        return Scaling()
    try:
        found = _scaling(step)
        if "mapper:clip" in step:
            low, high = (float(v) for v in step["mapper:clip"])
            found = replace(found, low=max(low, found.low), high=min(high, found.high))
    except ZeroDivisionError as reason:
        raise ModelError(f"value_scaling {dict(step)} divides by zero") from reason
    if found.low > found.high:
        raise ModelError(f"value_scaling {dict(step)} clips to nothing: minimum above maximum")
    if not np.isfinite(np.array([found.factor, found.offset], dtype=np.float32)).all():
        raise ModelError(f"value_scaling {dict(step)} is not finite")
    return found


def _scaling(step: Mapping[str, Any]) -> Scaling:
    number = {k: float(v) for k, v in step.items() if isinstance(v, int | float)}
    match step["type"]:
        case "min-max":
            low, span = number["minimum"], number["maximum"] - number["minimum"]
            return Scaling(factor=1 / span, offset=-low / span)
        case "z-score":
            return Scaling(factor=1 / number["stddev"], offset=-number["mean"] / number["stddev"])
        case "clip":
            return Scaling(low=number["minimum"], high=number["maximum"])
        case "clip-min":
            return Scaling(low=number["minimum"])
        case "clip-max":
            return Scaling(high=number["maximum"])
        case "offset":
            return Scaling(offset=-number["value"])
        case "scale":
            return Scaling(factor=1 / number["value"])
        case other:
            raise ModelError(f"value_scaling {other!r} is not supported; use min-max or z-score")


def column(values: Sequence[float]) -> np.ndarray:
    """Numbers of several bands, shaped to meet `(batch, band, y, x)`, float32."""
    return np.array(values, dtype=np.float32).reshape(1, -1, 1, 1)


def scaled(image: np.ndarray, scalings: Sequence[Scaling]) -> np.ndarray:
    """Apply scalings to `(batch, band, y, x)` float32: the reference of what graphs do."""
    image = image * column([s.factor for s in scalings])
    image = image + column([s.offset for s in scalings])
    image = np.maximum(image, column([s.low for s in scalings]))
    return np.minimum(image, column([s.high for s in scalings]))
