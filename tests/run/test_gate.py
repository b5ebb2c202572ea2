"""Gates: each of them at its bound, just past it, and open."""

import re

import pytest

from mapper.recipe.gates import Gates
from mapper.run.gate import failed_gates


def measures(mapped=1.0, green=0.4, confidence=0.8, seams=1.0):
    classes = [
        {"name": "green", "share": green},
        {"name": "other", "share": 1 - green},
        {"name": "nodata", "share": None},
    ]
    return {
        "mapped_share": mapped,
        "mean_confidence": confidence,
        "seam_index": seams,
        "classes": classes,
    }


GATES = Gates(coverage=0.9, shares=0.1, seams=1.5, confidence=0.05)


@pytest.mark.parametrize(
    ("now", "what"),
    [
        ({"mapped": 0.89}, "coverage: 89.0% of the area.*asks for 90.0%"),
        ({"seams": 1.51}, "seams: 1.51 changes.*lets 1.50 pass"),
        ({"confidence": 0.74}, "confidence: 0.740 on average, 0.800 in the last release"),
        ({"green": 0.51}, "shares: green is 51.0% of the map, 40.0% in the last release"),
    ],
)
def test_each_gate_says_what_does_not_pass(now, what):
    failed = failed_gates(GATES, measures(**now), measures())
    assert failed
    assert re.search(what, failed[0])
    # a gate that is open lets it pass
    assert not failed_gates(
        Gates(coverage=None, shares=None, seams=None, confidence=None), measures(**now), measures()
    )


@pytest.mark.parametrize(
    "now", [{"mapped": 0.9}, {"seams": 1.5}, {"confidence": 0.76}, {"green": 0.49}]
)
def test_at_its_bound_a_gate_lets_pass(now):
    assert not failed_gates(GATES, measures(**now), measures())


def test_without_a_release_nothing_is_compared():
    assert not failed_gates(GATES, measures(green=0.9, confidence=0.1), None)
    assert failed_gates(GATES, measures(mapped=0.1), None)


def test_a_map_too_small_for_an_index_passes_it():
    assert not failed_gates(GATES, measures(seams=None), measures())


def test_classes_that_the_last_release_did_not_know_are_not_compared():
    now = measures()
    now["classes"] = [*now["classes"], {"name": "water", "share": 0.9}]
    assert not failed_gates(GATES, now, measures())
    # maps of an earlier mapper lack what is measured by now
    before = {k: v for k, v in measures().items() if k not in ("mean_confidence", "seam_index")}
    assert not failed_gates(GATES, measures(confidence=0.1), before)
