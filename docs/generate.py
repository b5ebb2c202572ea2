"""Writes the generated parts of the documents; `--check` fails where one is out of date."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.main import get_command

from mapper.cli.commands import app
from mapper.cli.library import MODEL_COLUMNS, RECIPE_COLUMNS, model_row, recipe_row
from mapper.inference.card import load_card, shipped_models
from mapper.recipe import load_recipe, shipped_recipes

sys.path.insert(0, str(Path(__file__).parent))
from adapt_tables import adaptation_table, choices_table, cost_table, parts_table
from ingest_tables import ingest_table, search_table

FIVE = ("ugs-1m", "urban-10m", "openearthmap", "subpixel-2m", "fbp-24")
ROOT = Path(__file__).resolve().parent.parent


def recipes_table() -> str:
    """The recipes that come with mapper."""
    return _markdown([recipe_row(load_recipe(p.stem)) for p in shipped_recipes()], RECIPE_COLUMNS)


def models_table() -> str:
    """The models that come with mapper."""
    return _markdown([model_row(load_card(f.name)) for f in shipped_models()], MODEL_COLUMNS)


def _markdown(rows: list[list[str]], columns: list[str]) -> str:
    """A table whose first column is code."""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(f"| `{r[0]}` | {' | '.join(r[1:])} |" for r in rows)])


def training_table() -> str:
    """Small models against rules, as `make train-small` measured them."""
    path = ROOT / "benchmarks" / "training.json"
    if not path.exists():
        return "Not measured yet; `make train-small` does it."
    kept = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        "| recipe | data | seeds | mIoU (min to max) | overall accuracy | kappa "
        "| calibration error, before and after | rules | mIoU of the rules | gain (least) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in sorted(kept.items()):
        runs, miou, gain = found["runs"], found["miou"], found["gain"]
        span = f"{miou['mean']:.3f} ({miou['min']:.3f} to {miou['max']:.3f})"
        before, after = ([run["calibration"][side] for run in runs] for side in ("before", "after"))
        rows.append(
            f"| `{name}` | {found['data']} | {len(runs)} | {span} "
            f"| {_mean(runs, 'accuracy'):.3f} | {_mean(runs, 'kappa'):.3f} "
            f"| {_average(before):.3f}, {_average(after):.3f} | `{found['baseline']['model']}` "
            f"| {found['baseline']['miou']:.3f} | {gain['mean']:+.3f} ({gain['min']:+.3f}) |"
        )
    return "\n".join(rows)


def _mean(runs: list[dict[str, Any]], key: str) -> float:
    return _average([run[key] for run in runs])


def _average(values: list[float]) -> float:
    return sum(values) / len(values)


def walkthrough_table() -> str:
    """Each of the five recipes with the network that it trains and its product's classes."""
    rows = ["| recipe | network | classes | from data to a published map |", "|---|---|---|---|"]
    for name in FIVE:
        if train := load_recipe(name).train:
            network, classes = train.network.name, len(train.classes)
            script = f"`sh pipelines/walkthrough.sh {name}`"
            rows.append(f"| `{name}` | {network} | {classes} | {script} |")
    return "\n".join(rows)


def inference_table() -> str:
    """Tiled inference side by side, as `make bench-inference` measured it."""
    path = ROOT / "benchmarks" / "inference.json"
    if not path.exists():
        return "Not measured yet; `make bench-inference` does it."
    result = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        "| pixels | network | contender | windows | Mpx/s (min to max) | peak MiB | bytes/px "
        "| seams | moved by 37 px |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = {name: place for place, name in enumerate(result["contenders"])}
    cells = sorted(
        result["cells"],
        key=lambda c: (c["network"], c["rows"] * c["columns"], order[c["contender"]]),
    )
    rows += [_inference_row(cell) for cell in cells]
    machine = result["machine"]
    told = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB; "
        + ", ".join(f"{n} {v}" for n, v in result["versions"].items() if v != "not installed")
    )
    return "\n".join([*rows, "", f"*{result['date']}, {told}.*"])


_PEERS = ("monai", "terratorch", "geoai")
_SHOWN = ("mapper-core", "mapper-hann", "mapper-gaussian", *_PEERS)


def inference_summary() -> str:
    """Mapper and its peers where most of them were measured, at the largest such size."""
    path = ROOT / "benchmarks" / "inference.json"
    if not path.exists():
        return "Not measured yet; `make bench-inference` does it."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    rows = ["| network | pixels | contender | Mpx/s | peak MiB |", "|---|---|---|---|---|"]
    for network in sorted({c["network"] for c in cells}):
        mine = [c for c in cells if c["network"] == network and "mpx_per_s" in c]
        peers = [(c["rows"], c["columns"]) for c in mine if c["contender"] in _PEERS]
        if not peers:
            continue
        size = max(peers, key=lambda s, peers=peers: (peers.count(s), s))
        shown = {c["contender"]: c for c in mine if (c["rows"], c["columns"]) == size}
        rows += [
            f"| {network} | {size[0]} x {size[1]} | {name} "
            f"| {shown[name]['mpx_per_s']['median']:.3g} | {shown[name]['peak_mib']:.0f} |"
            for name in _SHOWN
            if name in shown
        ]
    return "\n".join(rows)


def _inference_row(cell: dict[str, Any]) -> str:
    windows = f"{cell['window']}/{cell['stride']} {cell['mode']}"
    head = f"| {cell['rows']} x {cell['columns']} | {cell['network']} | {cell['contender']}"
    if "mpx_per_s" not in cell:
        return f"{head} | {windows} | {cell['reason']} | | | | |"
    rate, quality = cell["mpx_per_s"], cell.get("quality", {})
    seams = quality.get("seam_index")
    stays = quality.get("translation_consistency_37")
    return (
        f"{head} | {windows} | {rate['median']:.3g} ({rate['min']:.3g} to {rate['max']:.3g}) "
        f"| {cell['peak_mib']:.0f} | {cell['bytes_per_pixel']:.3g} "
        f"| {'' if seams is None else f'{seams:.3f}'} "
        f"| {'' if stays is None else f'{100 * stays:.2f} %'} |"
    )


def command_reference() -> str:
    """Every verb with its options."""
    parts = []
    for name, command in _verbs(get_command(app)):
        parts.append(f"## mapper {name}\n\n{command.help}\n\n| option | meaning |\n|---|---|")
        for parameter in command.params:
            names = ", ".join(f"`{n}`" for n in [*parameter.opts, *parameter.secondary_opts])
            default = parameter.default
            shown = (
                "" if default in (None, False, (), []) or parameter.required else f" ({default})"
            )
            needed = " **required**" if parameter.required else ""
            parts[-1] += f"\n| {names} | {getattr(parameter, 'help', '') or ''}{shown}{needed} |"
    return "\n\n".join(parts)


def _verbs(group: Any, before: str = "") -> list[tuple[str, Any]]:
    """Every verb by name, those of a group behind the group's name."""
    found = []
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            found += _verbs(command, f"{before}{name} ")
        else:
            found.append((f"{before}{name}", command))
    return found


GENERATED: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "recipes": recipes_table,
        "models": models_table,
        "inference": inference_summary,
        "walkthroughs": walkthrough_table,
    },
    "docs/training.md": {"training": training_table},
    "docs/adaptation.md": {
        "adaptation": adaptation_table,
        "choices": choices_table,
        "parts": parts_table,
        "costs": cost_table,
    },
    "docs/inference.md": {"inference": inference_table},
    "docs/ingest.md": {"ingest": ingest_table, "search": search_table},
    "docs/cli.md": {"cli": command_reference},
}


def main() -> int:
    """Write, or check, every generated part."""
    stale = []
    for name, parts in GENERATED.items():
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = before
        for part, make in parts.items():
            begin, end = f"<!-- generated: {part} -->", "<!-- end -->"
            pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
            block = f"{begin}\n{make()}\n{end}"
            after = pattern.sub(lambda _, block=block: block, after)  # type: ignore[misc]
        if after != before:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
