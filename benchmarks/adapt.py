"""Source only, adapted, oracle: how far each method closes the gap (`make bench-adapt`).

For each task and seed one network is trained on the source's labels, adapted by every method
from those weights, and trained on the target's labels (the oracle, from the same weights). All
are scored on the half of the target that the oracle never saw, through `mapper export` and
`mapper evaluate`. Labels of the target serve the oracle, the scores, and the column
`target_miou` of the journal, from which the table of choices is made; no method sees them.

What is measured is kept in `adapt.json`. A second start goes on where the first was stopped.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import adapt_data
import yaml

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "benchmarks" / "adapt_settings.yaml"
RESULT = ROOT / "benchmarks" / "adapt.json"
SEEDS = (0, 1, 2)
TASKS = (
    "sim-style",
    "sim-subpixel",
    "sim-subpixel-head",
    "dubai-valencia-1m",
    "dubai-banepa-1m",
    "naip-trees",
)
METHODS = ("source", "adabn", "dpa", "daspm", "adversarial", "consistent")
ORACLE = "oracle"
CRITERIA = ("last", "source", "entropy", "information", "density", "agreement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One task with one seed: everything that shares the training on the source."""

    task: str
    seed: int
    rows: tuple[str, ...]
    """Methods, the oracle, or `method:variant` of a recipe's variants."""
    data: Path
    work: Path


def main() -> int:
    """Run what is asked for and write down what it came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--rows", nargs="*", default=[*METHODS, ORACLE])
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "adapt")
    parser.add_argument("--jobs", type=int, default=2, help="side by side, a core each")
    parser.add_argument("--result", type=Path, default=RESULT)
    wanted = parser.parse_args()
    archive = os.environ.get("MAPPER_TEST_ARCHIVE")
    folders = {
        task: adapt_data.prepare(
            _data_of(task), wanted.work / "data", Path(archive) if archive else None
        )
        for task in wanted.tasks
    }
    jobs = [
        Job(task=task, seed=seed, rows=tuple(wanted.rows), data=folders[task], work=wanted.work)
        for seed in wanted.seeds
        for task in wanted.tasks
    ]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(wanted.jobs) as pool:
        for found in pool.map(carried_out, jobs):
            _keep(wanted.result, found)
    return 0


def _data_of(task: str) -> str:
    """Two networks may share the data of one task."""
    listed = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))["tasks"]
    return str(listed.get(task, {}).get("data", task))


def _keep(path: Path, found: Mapping[str, Any]) -> None:
    """Put the rows of one job among those that are there."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = kept.setdefault(found["task"], {"rows": {}})
    rows["target"] = found["target"]
    for name, row in found["rows"].items():
        rows["rows"].setdefault(name, {})[str(found["seed"])] = row
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name, row in found["rows"].items():
        print(f"{found['task']} seed {found['seed']} {name}: mIoU {row['miou']:.4f}", flush=True)


def carried_out(job: Job) -> dict[str, Any]:
    """All rows of a task with one seed."""
    import torch

    torch.set_num_threads(1)
    about = json.loads((job.data / "task.json").read_text(encoding="utf-8"))
    rows = {}
    for row in job.rows:
        folder = job.work / job.task / str(job.seed) / row.replace(":", "-")
        result = folder / "scores.json"
        if not result.exists():
            scores = _oracle(job, about) if row == ORACLE else _adapted(job, about, row)
            result.write_text(json.dumps(scores, indent=1, sort_keys=True), encoding="utf-8")
        rows[row] = json.loads(result.read_text(encoding="utf-8"))
    return {"task": job.task, "seed": job.seed, "rows": rows, "target": about["target"]}


def _recipe(job: Job, about: Mapping[str, Any], settings: Sequence[str] = ()) -> Any:
    """The recipe of a task: bands and classes of its data, and how all tasks are learned."""
    from mapper.recipe import Recipe
    from mapper.recipe.settings import changed

    listed = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    own = dict(listed["tasks"].get(job.task, {}))
    own.pop("data", None)
    train = listed["common"] | own
    train |= {"bands": about["bands"], "classes": about["classes"], "seed": job.seed}
    train["data"] = {"layout": "images", "bands": about["bands"], "scale": about.get("scale", 1.0)}
    source = {"kind": "imagery", "catalog": "./imagery"}
    recipe = Recipe(
        name=job.task,
        title=job.task,
        resolution=about["resolution"]["target"],
        sources={"highres": source},
        model=job.task,
        train=train,
    )
    return changed(recipe, list(settings))


def _variant(row: str) -> list[str]:
    """Settings of a row `method` or `method:variant`."""
    method, _, name = row.partition(":")
    listed = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))["variants"]
    return [f"adapt.method={method}", *(listed[name] if name else [])]


def _base(job: Job, about: Mapping[str, Any]) -> Path:
    """The training on the source alone."""
    from mapper.training.train import TrainOptions, train_model

    out = job.work / job.task / str(job.seed) / "base"
    options = TrainOptions(
        recipe=_recipe(job, about), data=job.data / "source", out=out, device="cpu"
    )
    train_model(options)
    return out


def _test_set(job: Job, about: Mapping[str, Any], recipe: Any) -> Any:
    """The half of the target that scores."""
    from mapper.training.data.layouts import open_data

    data = open_data(job.data / "target", recipe.train.data, recipe.train.table)
    images = tuple(i for i in data.images if i.name in about["target"]["test"])
    return replace(data, images=images)


def _adapted(job: Job, about: Mapping[str, Any], row: str) -> dict[str, Any]:
    from mapper.training.adapt.driver import AdaptOptions, adapt_model
    from mapper.training.adapt.target import open_target
    from mapper.training.journal import read_journal

    recipe = _recipe(job, about, _variant(row))
    test = _test_set(job, about, recipe)
    out = job.work / job.task / str(job.seed) / row.replace(":", "-") / "adapted"
    report = adapt_model(
        AdaptOptions(
            recipe=recipe,
            source=job.data / "source",
            target=open_target(job.data / "target", recipe.train, recipe.train.data),
            out=out,
            start=_base(job, about),
            judge=test,
            device="cpu",
        )
    )
    found = _scores(out, test)
    lines = read_journal(out / "metrics.csv")
    return {
        **found,
        "epoch": report.epoch,
        "chosen_by": report.chosen_by,
        "choices": _choices(lines),
        "seconds": round(sum(line["seconds"] for line in lines), 1),
        "megapixels_per_second": report.megapixels_per_second,
        "memory_gib": report.memory_gib,
    }


def _choices(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Target mIoU of the epoch that each criterion would have chosen, and of the best."""
    from mapper.training.adapt.choosing import choose_epoch

    if not lines:
        return {}
    chosen = {name: lines[choose_epoch(lines, name)]["target_miou"] for name in CRITERIA}
    return chosen | {ORACLE: max(line["target_miou"] for line in lines)}


def _oracle(job: Job, about: Mapping[str, Any]) -> dict[str, Any]:
    """Trained on labels of the target's other half, from the same weights."""
    from mapper.training.train import TrainOptions, train_model

    held = json.dumps(about["target"]["test"])
    recipe = _recipe(job, about, ["data.group=^(.+)$", f"split.held_out={held}", "keep=last"])
    folder = job.work / job.task / str(job.seed) / ORACLE
    out = folder / "adapted"
    train_model(
        TrainOptions(
            recipe=recipe, data=job.data / "target", out=out, start=_base(job, about), device="cpu"
        )
    )
    return _scores(out, _test_set(job, about, recipe))


def _scores(out: Path, test: Any) -> dict[str, Any]:
    """What the exported model says of the test half."""
    from mapper.inference.card import load_card
    from mapper.inference.runtime import load_runtime
    from mapper.training.evaluate import evaluate
    from mapper.training.export import ExportOptions, export_model
    from mapper.training.weights import load_weights

    model = out.parent / "model"
    shutil.rmtree(model, ignore_errors=True)
    export_model(load_weights(out), ExportOptions(out=model, name="adapted"))
    card = load_card(str(model))
    scores = evaluate(card, load_runtime(card, 1, False), test, test.images).scores
    return {
        "miou": scores.mean_iou,
        "accuracy": scores.accuracy,
        "iou": {c.name: c.iou for c in scores.classes},
    }


def summary(rows: Mapping[str, Mapping[str, Any]], row: str) -> dict[str, float]:
    """Mean, spread and closed share of the gap, over the seeds that all rows have."""
    base, top = rows["source"], rows[ORACLE]
    seeds = sorted(set(rows[row]) & set(base) & set(top))
    own = [rows[row][s]["miou"] for s in seeds]
    gaps = [top[s]["miou"] - base[s]["miou"] for s in seeds]
    gains = [rows[row][s]["miou"] - base[s]["miou"] for s in seeds]
    return {
        "miou": statistics.mean(own),
        "spread": max(own) - min(own),
        "gain": statistics.mean(gains),
        "closed": statistics.mean(gains) / statistics.mean(gaps),
    }


if __name__ == "__main__":
    sys.exit(main())
