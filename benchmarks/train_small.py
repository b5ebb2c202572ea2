"""Trains the small models three times each and holds them against the rules: `make train-small`.

Everything goes through the command line: simulate, run, samples, train, export, evaluate. What is
measured is kept in `training.json`. A second start goes on where the first was stopped.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SMALL = ROOT / "benchmarks" / "small"
RESULT = ROOT / "benchmarks" / "training.json"
MAPPER = Path(sys.executable).with_name("mapper")
SEEDS = (0, 1, 2)
HELD_OUT = "split.held_out=[dogwood, elm]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A model to train, and the rules to beat."""

    recipe: str
    labelled: str = ""
    """Folder of the archive; empty for simulated towns."""
    baseline: str
    settings: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    """How samples are cut from the simulated towns."""
    shipped: bool = False


TASKS = (
    Task(recipe="urban-s2", labelled="india-s2", baseline="spectral-baseline", shipped=True),
    Task(recipe="trees-highres", labelled="naip-trees", baseline="rgb-baseline", shipped=True),
    Task(recipe="landcover-highres", labelled="dubai", baseline="rgb-baseline", shipped=True),
    Task(
        recipe="urban-10m",
        baseline="spectral-baseline",
        samples=("--size", "64", "--per-class", "12"),
        settings=(
            HELD_OUT,
            "network.options.width=16",
            "patch=64",
            "epochs=30",
            "patches=320",
            "optimizer.rate=0.003",
            "schedule.warmup=20",
            "precision=bf16-mixed",
            "keep=last",
        ),
    ),
    Task(
        recipe="ugs-1m",
        baseline="rgb-baseline",
        samples=("--size", "256", "--per-class", "6"),
        settings=(
            HELD_OUT,
            "network.options={backbone: resnet18, width: 0.25}",
            "patch=128",
            "batch=8",
            "epochs=12",
            "patches=240",
            "optimizer.rate=0.002",
            "optimizer.head_factor=1",
            "schedule.warmup=30",
            "precision=bf16-mixed",
            "keep=last",
        ),
    ),
)


def main() -> int:
    """Train what is asked for and write down what it came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=[t.recipe for t in TASKS])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "small")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, a core each")
    parser.add_argument("--ship", action="store_true", help="put seed 0 into models/")
    wanted = parser.parse_args()
    tasks = [t for t in TASKS if t.recipe in wanted.tasks]
    sets = {task.recipe: _data(task, wanted.work) for task in tasks}
    jobs = [(task, seed) for task in tasks for seed in wanted.seeds]
    with ThreadPoolExecutor(wanted.jobs) as pool:
        found = list(
            pool.map(lambda job: _trained(job[0], job[1], sets[job[0].recipe], wanted.work), jobs)
        )
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for task in tasks:
        runs = [one for (t, _), one in zip(jobs, found, strict=True) if t is task]
        kept[task.recipe] = _summary(task, runs, _baseline(task, sets[task.recipe], wanted.work))
    RESULT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for task in tasks if wanted.ship else ():
        if task.shipped:
            _ship(task, wanted.work / task.recipe / "0" / "model")
    return 0


def _data(task: Task, work: Path) -> Path:
    """The labelled images: of the archive, or cut from simulated towns."""
    if task.labelled:
        archive = os.environ.get("MAPPER_TEST_ARCHIVE")
        if not archive:
            sys.exit("MAPPER_TEST_ARCHIVE names no folder with labelled/; set it, or --tasks")
        return Path(archive) / "labelled" / task.labelled
    world, maps = work / "world", work / "maps"
    samples = work / task.recipe / "samples"
    if not (world / "catalog.json").exists():
        _mapper("simulate", "--aoi", SMALL / "towns.geojson", "--out", world, "--seed", "5")
    if not (samples / "samples.json").exists():
        cities = ("--aoi", world / "cities.geojson", "--year", "2022", "--out", maps)
        model = ("--recipe", task.recipe, "--model", task.baseline, "--workers", "1")
        _mapper("run", *cities, *model, "--catalog", world / "catalog.json")
        where = ("--labels", world / "simulated-truth", "--product", f"{task.recipe}-2022")
        _mapper("samples", maps, *where, "--out", samples, *task.samples)
    return samples


def _trained(task: Task, seed: int, data: Path, work: Path) -> dict[str, Any]:
    """One training, exported and scored on the held-out part."""
    folder = work / task.recipe / str(seed)
    settings = [part for s in (*task.settings, f"seed={seed}") for part in ("--set", s)]
    training, model = folder / "training", folder / "model"
    where = ("--data", data, "--out", training, "--device", "cpu")
    # a finished training says so at once; one of other settings is refused
    _mapper("train", task.recipe, *where, *settings)
    if not (model / "item.json").exists():
        _mapper("export", training, "--out", model, "--name", task.recipe)
    plain = _scores(task, str(model), data, folder / "evaluation", "--write", settings=settings)
    walk, compared = SMALL / f"{task.recipe}-own.yaml", plain
    if walk.exists():
        # the rules know fewer classes: held against them on those
        same = ("--crosswalk", walk)
        where = folder / "against-rules"
        compared = _scores(task, str(model), data, where, *same, settings=settings)
    card = json.loads((training / "card.json").read_text(encoding="utf-8"))
    return {"seed": seed, **plain, "against_rules": compared["miou"], "seconds": card["seconds"]}


def _baseline(task: Task, data: Path, work: Path) -> dict[str, Any]:
    walk = ("--crosswalk", SMALL / f"{task.recipe}.yaml")
    settings = [part for s in task.settings for part in ("--set", s)]
    folder = work / task.recipe / "baseline"
    return _scores(task, task.baseline, data, folder, *walk, settings=settings)


def _scores(
    task: Task, model: str, data: Path, out: Path, *more: Any, settings: list[str]
) -> dict[str, Any]:
    """What `mapper evaluate` says of the held-out part."""
    shutil.rmtree(out, ignore_errors=True)
    how = ("--recipe", task.recipe, "--part", "validation", "--out", out)
    _mapper("evaluate", model, "--data", data, *how, *settings, *more)
    found = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    scores, calibration = found["scores"], found["calibration"]
    return {
        "miou": scores["mean_iou"],
        "accuracy": scores["overall_accuracy"],
        "kappa": scores["kappa"],
        "iou": {c["name"]: c["iou"] for c in scores["classes"]},
        "pixels": scores["pixels"],
        "calibration": {
            side: calibration[side] and calibration[side]["ece"] for side in ("before", "after")
        },
        "temperature": (found["temperature"] or {}).get("temperature"),
    }


def _summary(task: Task, runs: list[dict[str, Any]], baseline: dict[str, Any]) -> dict[str, Any]:
    reached = [run["against_rules"] for run in runs]
    own = [run["miou"] for run in runs]
    return {
        "data": task.labelled or "simulated towns",
        "settings": list(task.settings),
        "baseline": {"model": task.baseline, **baseline},
        "runs": runs,
        "miou": {"mean": statistics.mean(own), "min": min(own), "max": max(own)},
        "gain": {
            "mean": statistics.mean(reached) - baseline["miou"],
            "min": min(reached) - baseline["miou"],
        },
    }


def _ship(task: Task, model: Path) -> None:
    target = ROOT / "models" / task.recipe
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(model, target)


def _mapper(*arguments: Any) -> None:
    # one thread each: trainings run side by side, and give the same numbers on any machine
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [str(MAPPER), "-q", *map(str, arguments)]
    print("+", " ".join(line[1:]), flush=True)
    subprocess.run(line, check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
