"""The generated parts of docs/ingest.md."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def ingest_table() -> str:
    """Ingest side by side, as `make bench-ingest` measured it."""
    path = ROOT / "benchmarks" / "ingest.json"
    if not path.exists():
        return "Not measured yet; `make bench-ingest` does it."
    result = json.loads(path.read_text(encoding="utf-8"))
    options, machine = result["options"], result["machine"]
    rows = [
        "| scenes | from | contender | Mpx/s (min to max) | CPU s | MB/s | requests/Mpx "
        "| bytes/px | peak MiB | scheduler tasks |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_ingest_row(cell) for cell in result["cells"]),
        "",
        "| warp of the next zone | resampling | error, px (99th percentile; max) "
        "| pixels that a smaller box changes |",
        "|---|---|---|---|",
        *(_warp_row(row) for row in result["warp"] if "max_px" in row),
        "",
        "| scenes | peak MiB of mapper |",
        "|---|---|",
        *(f"| {row['scenes']} | {max(row['peak_mib']):.0f} |" for row in result["memory"]),
    ]
    told = (
        f"{options['scenes']} scenes, {len(options['bands'])} bands, {options['tiles']} tiles of "
        f"{options['tile']} pixels; {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gib']:g} GiB; "
        + ", ".join(f"{n} {v}" for n, v in result["versions"].items() if v != "not installed")
    )
    return "\n".join([*rows, "", f"*{result['date']}, {told}.*"])


def search_table() -> str:
    """A plan from a local STAC file, as `make bench-search` measured it."""
    path = ROOT / "benchmarks" / "search.json"
    if not path.exists():
        return "Not measured yet; `make bench-search` does it."
    rows = json.loads(path.read_text(encoding="utf-8"))
    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join(
        [*lines, *("| " + " | ".join(f"{row[name]:,}" for name in columns) + " |" for row in rows)]
    )


def _ingest_row(cell: dict[str, Any]) -> str:
    place = "disk" if cell["place"] == "disk" else f"server, {cell['place']} ms"
    head = f"| {cell['zone']} zone | {place} | {cell['contender']}"
    if "mpx_per_s" not in cell:
        return f"{head} | {cell['reason']} | | | | | | |"
    rate = cell["mpx_per_s"]
    seconds = sorted(cell["cpu_seconds"])[len(cell["cpu_seconds"]) // 2]
    sent = [cell.get(n) for n in ("megabytes_per_s", "requests_per_mpx", "bytes_per_pixel")]
    return (
        f"{head} | {rate['median']:.3g} ({rate['min']:.3g} to {rate['max']:.3g}) | {seconds:.3g} | "
        + " | ".join("" if value is None else f"{value:.3g}" for value in sent)
        + f" | {cell['peak_mib']:.0f} | {cell['tasks']} |"
    )


def _warp_row(row: dict[str, Any]) -> str:
    return (
        f"| {row['contender']} | {row['resampling']} | {row['p99_px']:.2g}; {row['max_px']:.2g} "
        f"| {100 * row['changed_share']:.2g} % |"
    )
