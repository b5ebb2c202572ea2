"""Two processes side by side (DDP on the CPU): both end, and one of them writes what both made."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from mapper.training.journal import read_journal
from mapper.training.weights import load_weights
from tests.training.adapt.running import adapted
from tests.training.adapt.shifted import adapting

pytestmark = pytest.mark.usefixtures("one_thread")

STILL = (
    "adapt.choose=source",
    "adapt.patience=1",
    "adapt.epochs=4",
    "adapt.adversarial.optimizer.rate=1e-12",
    "adapt.adversarial.width=4",
)
"""What learns nothing, and ends as soon as that is seen."""

SCRIPT = """
import json, os, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from mapper.training import journal, train
from mapper.training.adapt import driver
from mapper.training.adapt.driver import AdaptOptions, adapt_model
from mapper.training.adapt.target import open_target
from tests.training.adapt.shifted import adapting

def late(function, seconds):
    def called(*args, **named):
        time.sleep(seconds)
        return function(*args, **named)
    return called

# whoever does not wait for the first process finds nothing, or what was there before
train.save_weights = late(train.save_weights, 0.6)
driver.save_weights = late(driver.save_weights, 0.6)
journal.Journal._note = late(journal.Journal._note, 0.3)

near, far, out = map(Path, sys.argv[1:4])
still = json.loads(sys.argv[4])
rank = os.environ.get("LOCAL_RANK", "0")

def adapt(recipe, name, start=None):
    report = adapt_model(AdaptOptions(
        recipe=recipe, source=near, target=open_target(far, recipe.train), out=out / name,
        start=start, device="cpu", devices=2,
    ))
    there = (out / name / "card.json").exists()
    told = {"finished": report.finished, "epochs": report.epochs, "there": there}
    (out / f"{name}-{rank}.json").write_text(json.dumps(told))

adapt(adapting("consistent", "epochs=1"), "consistent")
adapt(adapting("adversarial", *still), "adversarial", out / "consistent" / "source")
"""


@pytest.fixture(scope="module")
def pair(near, far, tmp_path_factory):
    """The source and two adaptations, learned by two processes."""
    out = tmp_path_factory.mktemp("pair")
    script = out / "learn.py"
    script.write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", script, near, far, out, json.dumps(STILL)],
        capture_output=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"},
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return out


def told(out, name):
    """What each process says in the end."""
    return [json.loads((out / f"{name}-{rank}.json").read_text()) for rank in range(2)]


def test_both_end_once_all_is_written(pair):
    for name, epochs in (("consistent", 2), ("adversarial", 2)):
        expected = {"finished": True, "epochs": epochs, "there": True}
        assert told(pair, name) == [expected, expected]


@pytest.mark.parametrize("name", ["consistent", "adversarial"])
def test_weights_and_card_are_whole(name, pair):
    card = json.loads((pair / name / "card.json").read_text())
    assert card["adapted"]["method"] == name
    assert all(np.isfinite(value) for value in card["scores"].values())
    assert {"entropy", "density", "miou"} <= card["scores"].keys()
    state = load_weights(pair / name).network.state_dict()
    assert all(torch.isfinite(values).all() for values in state.values())


def test_measures_are_those_of_the_network_that_is_kept(pair, near, far, tmp_path):
    """No pixel counts twice, and no other process's batch statistics have a say."""
    card = json.loads((pair / "adversarial" / "card.json").read_text())
    lines = read_journal(pair / "adversarial" / "metrics.csv")
    weights = pair / "adversarial"
    alone = adapted(adapting("source"), (near, far), tmp_path / "out", start=weights)
    for name in ("miou", "accuracy", "entropy", "information", "density", "agreement"):
        assert card["scores"][name] == pytest.approx(alone.scores[name], rel=1e-5)
        assert card["scores"][name] == pytest.approx(lines[card["epoch"]][name])
