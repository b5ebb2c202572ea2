"""Tables of what adaptation closes of the gap, from what `make bench-adapt` measured."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "adapt.json"
ROWS = ("source", "adabn", "dpa", "daspm", "adversarial", "consistent", "oracle")
NAMES = {
    "source": "source only",
    "adabn": "AdaBN",
    "dpa": "DPA",
    "daspm": "DASPM",
    "adversarial": "adversarial",
    "consistent": "**consistent** (default)",
    "oracle": "oracle (target's labels)",
}
CRITERIA = ("last", "source", "entropy", "information", "density", "agreement", "oracle")
_NOTHING = "Not measured yet; `make bench-adapt` does it."

Rows = Mapping[str, Mapping[str, Any]]


def measured() -> dict[str, Any]:
    """What was kept, by task; empty where nothing was measured."""
    return json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}


def seeds_of(rows: Rows, *names: str) -> list[str]:
    """Seeds that all of these rows were measured with."""
    return sorted(set.intersection(*(set(rows.get(name, {})) for name in names)))


def closed(rows: Rows, name: str) -> float | None:
    """Share of the gap from source only to oracle that a row closes, of means over the seeds."""
    seeds = seeds_of(rows, name, "source", "oracle")
    if not seeds:
        return None

    def mean(row: str) -> float:
        return statistics.mean(rows[row][seed]["miou"] for seed in seeds)

    gap = mean("oracle") - mean("source")
    return (mean(name) - mean("source")) / gap if gap > 0 else None


def adaptation_table() -> str:
    """Every task and row: mIoU with its spread, gap closed, accuracy, IoU of the classes."""
    blocks = []
    for task, found in measured().items():
        rows = found["rows"]
        classes = list(next(iter(next(iter(rows.values())).values()))["iou"])
        head = ["", "mIoU (min to max)", "gap closed", "overall accuracy", *classes]
        lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [_line(rows, name, classes) for name in ROWS if name in rows]
        seeds = len(seeds_of(rows, "source", "oracle"))
        blocks.append("\n".join([f"**{task}**, {seeds} seeds", "", *lines]))
    return "\n\n".join(blocks) or _NOTHING


def _line(rows: Rows, name: str, classes: Sequence[str]) -> str:
    runs = list(rows[name].values())
    miou = [run["miou"] for run in runs]
    cells = [
        NAMES[name],
        f"{statistics.mean(miou):.3f} ({min(miou):.3f} to {max(miou):.3f})",
        "" if name in ("source", "oracle") else _share(closed(rows, name)),
        f"{statistics.mean(run['accuracy'] for run in runs):.3f}",
        *(_mean([run["iou"][c] for run in runs]) for c in classes),
    ]
    return f"| {' | '.join(cells)} |"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.3f}" if known else "–"


def choices_table() -> str:
    """Target mIoU of the epoch that each criterion would have chosen, on the oracle's half.

    Over the tasks and seeds that all of the methods have.
    """
    common = [
        (found["rows"], seed)
        for found in measured().values()
        for seed in seeds_of(found["rows"], *ROWS[2:-1])
    ]
    lines = [f"| method | {' | '.join(CRITERIA)} |", "|---" * (len(CRITERIA) + 1) + "|"]
    for name in ROWS[2:-1]:
        runs = [rows[name][seed]["choices"] for rows, seed in common]
        if runs:
            means = [statistics.mean(run[c] for run in runs) for c in CRITERIA]
            lines.append(f"| {NAMES[name]} | {' | '.join(f'{m:.3f}' for m in means)} |")
    return "\n".join(lines) if len(lines) > 2 else _NOTHING


def parts_table() -> str:
    """The default with a part taken out or put in, on the oracle's half of the target."""
    lines = [
        "| task | variant | mIoU | default, same seeds | difference |",
        "|---|---|---|---|---|",
    ]
    for task, found in measured().items():
        for name, runs in found["rows"].items():
            if ":" not in name:
                continue
            seeds = seeds_of(found["rows"], name, "consistent")
            if not seeds:
                continue
            own = statistics.mean(runs[s]["tuned"] for s in seeds)
            plain = statistics.mean(found["rows"]["consistent"][s]["tuned"] for s in seeds)
            variant = name.partition(":")[2]
            lines.append(f"| {task} | {variant} | {own:.3f} | {plain:.3f} | {own - plain:+.3f} |")
    return "\n".join(lines) if len(lines) > 2 else _NOTHING


def cost_table() -> str:
    """Seconds, throughput and memory of each method, over tasks and seeds."""
    lines = ["| method | seconds | Mpx/s, both domains | GiB |", "|---|---|---|---|"]
    for name in ROWS[2:-1]:
        runs = [
            run for found in measured().values() for run in found["rows"].get(name, {}).values()
        ]
        if runs:
            seconds = statistics.median(run["seconds"] for run in runs)
            rate = statistics.median(run["megapixels_per_second"] for run in runs)
            memory = max(run["memory_gib"] for run in runs)
            lines.append(f"| {NAMES[name]} | {seconds:.0f} | {rate:.2f} | {memory:.1f} |")
    return "\n".join(lines) if len(lines) > 2 else _NOTHING
