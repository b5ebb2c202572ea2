"""A model, ready to run by a plan: stored windows in, scores or finished bytes out."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mapper.errors import DeviceMemoryError
from mapper.inference.blend import lattice_sum, window_weights
from mapper.inference.card import ModelCard
from mapper.inference.coding import Coding
from mapper.inference.outputs import MapArray, map_arrays
from mapper.inference.plan import InferencePlan, composition_of
from mapper.inference.rows import Stored
from mapper.inference.runtime import Program, Runtime, load_program

logger = logging.getLogger(__name__)

FINISH_PIXELS = 1 << 16
"""Decided at once: few enough that their scores stay in the processor's cache."""


_engines: dict[tuple[int, InferencePlan], "Engine"] = {}
_making = threading.Lock()


@dataclass(slots=True)
class Meter:
    """Seconds in which the model ran; of calls side by side each counts for itself."""

    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The model runs inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds += time.perf_counter() - began


# not slotted: what follows from the plan is worked out once and kept
@dataclass(frozen=True)
class Engine:
    """A model, its plan, and what it is fed with."""

    card: ModelCard
    plan: InferencePlan
    coding: Coding
    program: Program
    most: list[int] = field(default_factory=list, compare=False)
    """Windows that turned out to fit the memory at once, the last number counting."""
    meter: Meter = field(default_factory=Meter, compare=False)

    @cached_property
    def arrays(self) -> tuple[MapArray, ...]:
        """What a map consists of."""
        return map_arrays(self.card, self.plan.decision)

    @cached_property
    def always_usable(self) -> bool:
        """True where no required band can be nodata."""
        sure = {c for layer in self.coding.layers if layer.nodata is None for c in layer.channels}
        return sure.issuperset(self.card.required_channels)

    @cached_property
    def norm(self) -> np.ndarray:
        """Sum of the weights of all windows along one axis, by place modulo stride."""
        if self.plan.weights == "none":
            return np.ones(1)
        return lattice_sum(window_weights(self.plan.size, self.plan.weights), self.plan.stride)

    @cached_property
    def values(self) -> np.ndarray | None:
        """Pixel value of each channel; None where they are the same."""
        values = np.array(self.card.classes.values, dtype=np.uint8)
        return None if (values == np.arange(len(values))).all() else values

    @cached_property
    def finish(self) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
        """From sums of scores `(class, y, x)` and of weights `(y, x)` to finished bytes."""
        from mapper.inference.onnx import FinishingSession

        session = FinishingSession(composition_of(self.card, self.plan, self.coding))

        return session.run

    def run(self, stored: Stored) -> Mapping[str, np.ndarray]:
        """One batch; with test-time augmentation the sum over all eight views.

        A batch that does not fit the memory is halved, where that changes no label.
        """
        count = len(stored[0])
        step = min([count, *self.most[-1:]])
        if step < count:
            return self._in_parts(stored, step)
        try:
            with self.meter.running():
                return self._run(stored)
        except DeviceMemoryError as reason:
            if count == 1 or self.plan.batch_matters:
                raise
            logger.warning("half the batch from here on: %s", reason)
            self.most.append(count // 2)
            return self._in_parts(stored, count // 2)

    def _in_parts(self, stored: Stored, step: int) -> Mapping[str, np.ndarray]:
        parts = [
            self.run(tuple(s[start : start + step] for s in stored))
            for start in range(0, len(stored[0]), step)
        ]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _run(self, stored: Stored) -> Mapping[str, np.ndarray]:
        if self.plan.augmentation == "none":
            return self.program.run(stored)
        total: Any = None
        for turn in range(8):
            scores = self.program.run(tuple(_turned(s, turn) for s in stored))["scores"]
            back = _turned_back(scores, turn)
            total = back.copy() if total is None else np.add(total, back, out=total)
        return {"scores": total}

    @property
    def views(self) -> int:
        """How many runs each window's scores are the sum of."""
        return 1 if self.plan.augmentation == "none" else 8


def make_engine(card: ModelCard, plan: InferencePlan, coding: Coding, runtime: Runtime) -> Engine:
    """Dress a runtime as the plan says; once per process, however often it is asked for."""
    program = load_program(runtime, composition_of(card, plan, coding))
    with _making:
        found = _engines.get((id(program), plan))
        if found is None:
            found = Engine(card, plan, coding, program)
            _engines[id(program), plan] = found
    return found


def _turned(windows: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight views of square windows: mirrored from 4 on, and a quarter turn each."""
    view = windows[..., ::-1] if turn >= 4 else windows
    return np.ascontiguousarray(np.rot90(view, turn % 4, axes=(-2, -1)))


def _turned_back(windows: np.ndarray, turn: int) -> np.ndarray:
    """The inverse of `_turned`."""
    view = np.rot90(windows, -(turn % 4), axes=(-2, -1))
    return view[..., ::-1] if turn >= 4 else view
