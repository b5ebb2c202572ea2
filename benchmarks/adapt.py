"""Source only, adapted, oracle: how far each method closes the gap (`make bench-adapt`).

For each task and seed one network is trained on the source's labels, adapted by every method
from those weights, and trained on labels of one half of the target (the oracle, from the same
weights). All are scored on the other half, through `mapper export` and `mapper evaluate`; methods
see the images of both halves and no label. What the default is made of, and how an epoch is
chosen, is judged on the oracle's half alone (`tuned`, `choices`), so that the scored half decides
nothing.

What is measured is kept in `adapt.json`. A second start goes on where the first was stopped; what
was measured with other settings is measured anew.
"""

import argparse
import json
import multiprocessing
import os
import shutil
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
    folders = _prepared(wanted.tasks, wanted.work / "data")
    jobs = [
        Job(task=task, seed=seed, rows=tuple(wanted.rows), data=folders[task], work=wanted.work)
        for seed in wanted.seeds
        for task in folders
    ]
    os.environ["OMP_NUM_THREADS"] = "1"
    # fresh processes: a fork of one that has used PyTorch may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(wanted.jobs, mp_context=context) as pool:
        for found in pool.map(carried_out, jobs):
            _keep(wanted.result, found)
    return 0


def _prepared(tasks: Sequence[str], work: Path) -> dict[str, Path]:
    """Folders of the tasks' data; real ones are left out where there is no archive."""
    archive = os.environ.get("MAPPER_TEST_ARCHIVE")
    known = {**adapt_data.TASKS, **adapt_data.VARIANTS}
    lost = [t for t in tasks if not archive and not known[_data_of(t)].simulated]
    if lost:
        print(f"left out, MAPPER_TEST_ARCHIVE names no archive: {', '.join(lost)}", flush=True)
    where = Path(archive) if archive else None
    return {t: adapt_data.prepare(_data_of(t), work, where) for t in tasks if t not in lost}


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
        digest = _digest(job, about, row)
        if _kept_digest(folder) not in (None, digest):
            shutil.rmtree(folder)
        result = folder / "scores.json"
        if not result.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "digest").write_text(digest, encoding="utf-8")
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


def _digest(job: Job, about: Mapping[str, Any], row: str) -> str:
    """Of all settings that a row depends on: the training, and of `adapt` its own method."""
    from mapper.recipe import digest_of

    recipe = _recipe(job, about, [] if row == ORACLE else _variant(row))
    train = recipe.train.model_dump(mode="json")
    how = train.pop("adapt")
    shared = {key: value for key, value in how.items() if not isinstance(value, dict)}
    own = {} if row == ORACLE else {"shared": shared, "own": how.get(how["method"])}
    return digest_of({"train": train, "adapt": own, "about": about})


def _kept_digest(folder: Path) -> str | None:
    path = folder / "digest"
    return path.read_text(encoding="utf-8") if path.exists() else None


def _variant(row: str) -> list[str]:
    """Settings of a row `method` or `method:variant`."""
    method, _, name = row.partition(":")
    listed = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))["variants"]
    return [f"adapt.method={method}", *(listed[name] if name else [])]


def _base(job: Job, about: Mapping[str, Any]) -> Path:
    """The training on the source alone."""
    from mapper.training.train import TrainOptions, train_model

    out = job.work / job.task / str(job.seed) / "base" / _digest(job, about, ORACLE)[:12]
    options = TrainOptions(
        recipe=_recipe(job, about), data=job.data / "source", out=out, device="cpu"
    )
    train_model(options)
    return out


def _half(job: Job, about: Mapping[str, Any], recipe: Any, name: str) -> Any:
    """A half of the target with its labels: `test` scores, `train` is the oracle's."""
    from mapper.training.data.layouts import open_data

    data = open_data(job.data / "target", recipe.train.data, recipe.train.table)
    images = tuple(i for i in data.images if i.name in about["target"][name])
    return replace(data, images=images)


def _adapted(job: Job, about: Mapping[str, Any], row: str) -> dict[str, Any]:
    from mapper.training.adapt.driver import AdaptOptions, adapt_model
    from mapper.training.adapt.target import open_target
    from mapper.training.journal import read_journal

    recipe = _recipe(job, about, _variant(row))
    halves = {name: _half(job, about, recipe, name) for name in ("test", "train")}
    out = job.work / job.task / str(job.seed) / row.replace(":", "-") / "adapted"
    report = adapt_model(
        AdaptOptions(
            recipe=recipe,
            source=job.data / "source",
            target=open_target(job.data / "target", recipe.train, recipe.train.data),
            out=out,
            start=_base(job, about),
            judge=halves["train"],
            device="cpu",
        )
    )
    lines = read_journal(out / "metrics.csv")
    return {
        **_scores(out, halves["test"]),
        "tuned": report.scores["target_miou"],
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
    return _scores(out, _half(job, about, recipe, "test"))


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


if __name__ == "__main__":
    sys.exit(main())
