"""`mapper plan --refresh --why`: what would be done again, and because of what."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from mapper.cli.output import print_json

_SHOWN = 8


def show_changes(plans: Sequence[Any], out: Path, as_json: bool) -> None:
    """Print, for each city, which steps a refresh touches and which input changed."""
    from mapper.run.ledger import Ledger
    from mapper.run.why import changes

    ledger = Ledger(out / "ledger")
    found = [(plan.area.slug, changes(plan, ledger)) for plan in plans]
    if as_json:
        print_json(
            [
                {
                    "city": slug,
                    "held_against": each.version,
                    "unknown": each.unknown,
                    "same": each.same,
                    "touched": [
                        {
                            "stage": t.stage,
                            "part": t.part,
                            "tile": str(t.tile),
                            "reasons": t.reasons,
                        }
                        for t in each.touched
                    ],
                }
                for slug, each in found
            ]
        )
        return
    for slug, each in found:
        typer.echo(f"{slug}: {_summary(each)}")
        for reason, count in each.counts()[:_SHOWN]:
            typer.echo(f"  {count:5d}  {reason}")
        more = len(each.counts()) - _SHOWN
        if more > 0:
            typer.echo(f"  and {more} more reasons; --json lists them for each tile")


def _summary(found: Any) -> str:
    if found.unknown:
        return f"all of it would be done, for {found.unknown}"
    if not found.touched:
        return f"nothing changed since v{found.version}"
    return f"{len(found.touched)} of {len(found.touched) + found.same} steps would be done again"
