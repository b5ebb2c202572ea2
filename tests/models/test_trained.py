"""Models with weights: what their folders promise, and that they are better than the rules."""

import json
from pathlib import Path

import pytest

from mapper.inference.card import load_card, shipped_models
from mapper.inference.folder import Opening, check_forms
from mapper.recipe import load_recipe

ROOT = Path(__file__).parents[2]
TRAINED = [f.name for f in shipped_models() if not f.name.endswith("-baseline")]
MEASURED = json.loads((ROOT / "benchmarks" / "training.json").read_text())


def test_there_are_some_and_they_are_small():
    assert "urban-s2" in TRAINED
    size = sum(p.stat().st_size for name in TRAINED for p in (ROOT / "models" / name).iterdir())
    assert size < 20_000_000


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_model_is_what_its_card_says(name, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    card = load_card(name)
    assert all(found.state == "ok" for found in check_forms(card, "all", Opening()))
    settings = load_recipe(name).train
    assert card.bands == tuple(settings.bands)
    assert card.classes == settings.table
    properties = card.item["properties"]
    assert card.license in ("MIT", "CC0-1.0", "CC-BY-4.0")
    assert properties["mapper:limits"]
    assert properties["mapper:training"]["kept"] == "last"
    readme = (card.folder / "README.md").read_text(encoding="utf-8")
    for limit in properties["mapper:limits"]:
        assert limit in readme
    assert f"{properties['mapper:training']['scores']['miou']:.4f}" in readme


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_model_beats_the_rules_with_every_seed(name):
    found = MEASURED[name]
    assert found["gain"]["min"] > 0
    assert all(r["against_rules"] > found["baseline"]["miou"] for r in found["runs"])
    kept = load_card(name).item["properties"]["mapper:evaluation"]
    assert kept["mean_iou"] == pytest.approx(found["runs"][0]["miou"], abs=1e-6)


def test_simulated_towns_are_mapped_ten_points_better_than_by_rules():
    for name in ("urban-10m", "ugs-1m"):
        assert MEASURED[name]["gain"]["min"] > 0.10
