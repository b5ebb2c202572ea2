"""The gate before the public: whether a finished map may become the latest by itself."""

import json
from collections.abc import Mapping
from typing import Any

from mapper.recipe.gates import Gates
from mapper.run.layout import Version

Measures = Mapping[str, Any]
"""Content of a version's `statistics.json`."""


def read_measures(version: Version) -> Measures:
    """What was measured of a published map."""
    path = version.product_folder / "statistics.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def failed_gates(gates: Gates, now: Measures, before: Measures | None) -> tuple[str, ...]:
    """Gates that a map does not pass, each as a sentence; empty where it may be released.

    Args:
        gates: of the recipe; those that are None are always open.
        now: of the map.
        before: of the last release; without one, nothing is compared.
    """
    found = [_coverage(gates, now), _seams(gates, now)]
    if before is not None:
        found += [_confidence(gates, now, before), *_shares(gates, now, before)]
    return tuple(sentence for sentence in found if sentence)


def _coverage(gates: Gates, now: Measures) -> str:
    share = float(now["mapped_share"])
    if gates.coverage is None or share >= gates.coverage:
        return ""
    return f"coverage: {share:.1%} of the area has a class, the gate asks for {gates.coverage:.1%}"


def _seams(gates: Gates, now: Measures) -> str:
    index = now.get("seam_index")
    if gates.seams is None or index is None or index <= gates.seams:
        return ""
    return (
        f"seams: {index:.2f} changes of class on borders of tiles for each elsewhere, the gate "
        f"lets {gates.seams:.2f} pass"
    )


def _confidence(gates: Gates, now: Measures, before: Measures) -> str:
    new, old = now.get("mean_confidence"), before.get("mean_confidence")
    if gates.confidence is None or new is None or old is None:
        return ""
    if abs(new - old) <= gates.confidence:
        return ""
    return (
        f"confidence: {new:.3f} on average, {old:.3f} in the last release, the gate lets "
        f"{gates.confidence:.3f} of difference pass"
    )


def _shares(gates: Gates, now: Measures, before: Measures) -> list[str]:
    if gates.shares is None:
        return []
    old = {row["name"]: row["share"] or 0.0 for row in before["classes"]}
    found = []
    for row in now["classes"]:
        name, share = row["name"], row["share"] or 0.0
        if name in old and abs(share - old[name]) > gates.shares:
            found.append(
                f"shares: {name} is {share:.1%} of the map, {old[name]:.1%} in the last release, "
                f"the gate lets {gates.shares:.1%} of difference pass"
            )
    return found
