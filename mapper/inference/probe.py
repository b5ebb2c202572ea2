"""Measuring instead of assuming: which form, window and batch give the most core pixels a second.

A probe runs noise through the model. What it finds is kept, once per model, device and thread
count: the form and the window are part of the frozen plan, so they must not change between runs.
"""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mapper.errors import DeviceMemoryError, MapperError
from mapper.inference.card import ModelCard, load_card
from mapper.inference.coding import Coding
from mapper.inference.devices import DeviceChoice, device_name, free_memory, open_model
from mapper.inference.engine import Engine, make_engine
from mapper.inference.memory import predict_memory
from mapper.inference.plan import InferencePlan, plan_inference
from mapper.inference.runtime import Runtime
from mapper.inference.stages import side_by_side
from mapper.recipe import Predict, digest_of
from mapper.store.files import write_json

logger = logging.getLogger(__name__)

BATCHES = (1, 2, 4, 8, 16, 32, 64)
_SECONDS = 0.06
"""Time for one measurement, at least one run of it."""
_MEASUREMENTS = 3
"""The best of them counts: whatever else the machine does only ever slows a model down."""
WORTHWHILE = 1.1
"""A larger batch has to be this much faster, since it takes more memory."""
_MEMORY_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One way to run a model, and how fast it was."""

    artifact: str
    size: int
    batch: int
    rate: float
    """Core pixels a second: what a map gets, not what is computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A model opened the way that was chosen, and its frozen plan."""

    card: ModelCard
    runtime: Runtime
    plan: InferencePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a user may leave open."""

    predict: Predict
    device: DeviceChoice = "auto"
    trust: bool = False


def choose(card: ModelCard, wishes: Wishes, coding: Coding, kept: Path | None) -> ModelChoice:
    """Freeze the plan; what is left open is measured, or taken from an earlier probe.

    Args:
        card: of the model, with its first form.
        wishes: what the recipe and the command line say.
        coding: how the channels are stored.
        kept: file of earlier probes; None measures anew.

    Raises: ModelError, RecipeError, DeviceError.
    """
    wanted = wishes.predict
    forms = [wanted.form] if wanted.form else _forms(card)
    sizes = [wanted.size] if wanted.size else _sizes(card)
    if wanted.batch and len(forms) == 1 and len(sizes) == 1:
        return _opened(card, forms[0], wishes, coding, {"size": sizes[0]})
    first = _opened(card, forms[0], wishes, coding, {"size": sizes[0]})
    key = _key(first, wishes, (forms, sizes), coding)
    found = _recall(kept, key)
    if found is None:
        measured = list(_measure_all(card, wishes, coding, (forms, sizes)))
        if not measured:
            return first
        found = max(measured, key=lambda m: m.rate)
        _keep(kept, key, found)
    changes = {"size": found.size if wanted.size or card.window.get("sizes") else None}
    return _opened(card, found.artifact, wishes, coding, {**changes, "batch": found.batch})


def _forms(card: ModelCard) -> list[str]:
    """Forms of the precision that the card names first: another would give other labels."""
    precision = card.artifacts[0].precision
    return [a.name for a in card.artifacts if a.precision == precision]


def _sizes(card: ModelCard) -> list[int | None]:
    return list(card.window.get("sizes", [])) or [None]


def _opened(
    card: ModelCard, form: str, wishes: Wishes, coding: Coding, changes: dict[str, Any]
) -> ModelChoice:
    predict = wishes.predict.model_copy(update={k: v for k, v in changes.items() if v})
    chosen = card if form == card.artifact.name else load_card(str(card.folder), form)
    runtime, device = open_model(chosen, predict.threads, wishes.trust, wishes.device)
    plan = plan_inference(chosen, runtime, predict, coding, device)
    return ModelChoice(card=chosen, runtime=runtime, plan=plan)


def _key(first: ModelChoice, wishes: Wishes, open_choices: tuple[Any, Any], coding: Coding) -> str:
    plan = asdict(first.plan)
    asked = wishes.predict.model_dump(mode="json")
    return digest_of(
        {
            "model": [a.checksum or a.name for a in first.card.artifacts],
            "card": first.card.digest,
            "device": [device_name(first.plan.device), plan["runtime"]],
            "asked": asked,
            "open": [list(map(str, part)) for part in open_choices],
            "coding": repr(coding),
        }
    )


def _measure_all(
    card: ModelCard, wishes: Wishes, coding: Coding, open_choices: tuple[Any, Any]
) -> Iterator[Measured]:
    """Every form and size, each at its best batch."""
    forms, sizes = open_choices
    for form in forms:
        for size in sizes:
            try:
                choice = _opened(card, form, wishes, coding, {"size": size})
                yield _best_batch(choice, coding, wishes.predict.batch)
            except MapperError as reason:
                # a form that cannot run here is not proposed; one that was asked for is not probed
                if len(forms) == 1 and len(sizes) == 1:
                    raise
                logger.info("form %s, window %s: %s", form, size, reason)


def _best_batch(choice: ModelChoice, coding: Coding, wanted: int | None) -> Measured:
    best: Measured | None = None
    for batch in [wanted] if wanted else BATCHES:
        plan = replace(choice.plan, batch=batch)
        if best and predict_memory(choice.card, plan, coding, plan.size) > _limit():
            break
        engine = make_engine(choice.card, plan, coding, choice.runtime)
        try:
            rate = max(core_rate(engine) for _ in range(_MEASUREMENTS))
        except DeviceMemoryError:
            if best is None:
                raise
            break
        found = Measured(artifact=plan.artifact, size=plan.size, batch=batch, rate=rate)
        if best is not None and rate < best.rate * WORTHWHILE:
            break
        best = found
    if best is None:
        raise DeviceMemoryError(f"model {choice.card.name!r} does not fit the memory")
    return best


def _limit() -> float:
    return _MEMORY_SHARE * free_memory()


def core_rate(engine: Engine, seconds: float = _SECONDS) -> float:
    """Core pixels a second of an engine's model alone, in batches of noise."""
    plan, rng = engine.plan, np.random.default_rng(0)
    stored = tuple(
        rng.integers(1, 250, (plan.batch, len(layer.channels), plan.size, plan.size)).astype(
            layer.dtype
        )
        for layer in engine.coding.layers
    )

    def once(_: int) -> None:
        engine.run(stored)

    once(0)
    began, runs, step = time.perf_counter(), 0, engine.program.parallel
    while runs == 0 or time.perf_counter() - began < seconds:
        for _ in side_by_side(range(step), once, step):
            runs += 1
    core = plan.batch * plan.stride**2
    return runs * core / (time.perf_counter() - began)


def _recall(kept: Path | None, key: str) -> Measured | None:
    if kept is None:
        return None
    try:
        return Measured(**json.loads(kept.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(kept: Path | None, key: str, found: Measured) -> None:
    """Losing a probe costs a second one, so a folder that refuses is no failure."""
    if kept is None:
        return
    try:
        content = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {**content, key: asdict(found)})
    except (OSError, MapperError) as reason:
        logger.warning("the probe could not be kept: %s", reason)
