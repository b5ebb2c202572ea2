"""Files of an evaluation: readable, whole, free of NaN."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mapper.classes import ClassTable, MapClass
from mapper.errors import UsageError
from mapper.training.evaluate import Evaluation
from mapper.training.reports import write_report
from mapper.training.scores import Calibration, Scores
from mapper.training.temperature import Fit


def evaluation(count, fitted=True) -> Evaluation:
    """Of random counts; the last class is in neither reference nor map."""
    rng = np.random.default_rng(count)
    matrix = rng.integers(0, 900, (count, count)) + np.diag(rng.integers(0, 10**6, count))
    matrix[rng.random(matrix.shape) > 4 / count] = 0
    matrix[-1], matrix[:, -1] = 0, 0
    classes = ClassTable(
        classes=tuple(
            MapClass(value=k, name=f"class{k}", title=f"Class ${k}$ of a long name", color="FFFFFF")
            for k in range(count)
        )
    )
    sure = rng.beta(5, 1, 2000)
    before, after = Calibration(), Calibration()
    before.add(sure, rng.random(2000) < sure**2)
    after.add(sure**2, rng.random(2000) < sure**2)
    scores = Scores.of(matrix, [c.name for c in classes.classes])
    return Evaluation(
        model="tiny",
        model_digest="00",
        data={"name": "towns", "layout": "images", "license": "other", "facts": {}},
        classes=classes,
        scores=scores,
        groups={"west": scores},
        before=before,
        after=after if fitted else None,
        fit=Fit(temperature=1.5, pixels=2000, nll_before=0.5, nll_after=0.4) if fitted else None,
        images=3,
        pixels=scores.pixels,
        ignored=10,
        unmapped=5,
        missing=(),
    )


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(("count", "fitted"), [(2, False), (25, True)])
def test_files(tmp_path, count, fitted):
    given = evaluation(count, fitted)
    written = write_report(given, tmp_path / "out")
    assert sorted(tmp_path.glob("out/*")) == sorted(written)
    found = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert found["scores"]["classes"][-1]["iou"] is None
    assert found["scores"]["confusion"]["rows"] == "reference"
    assert (found["temperature"] is None) == (not fitted)
    header, *lines = rows(tmp_path / "out/confusion.csv")
    assert header == ["reference", *(f"class{k}" for k in range(count))]
    matrix = [[int(v) for v in line[1:]] for line in lines]
    assert tuple(map(tuple, matrix)) == given.scores.matrix
    header, *lines = rows(tmp_path / "out/classes.csv")
    assert [line[0] for line in lines] == [f"class{k}" for k in range(count)]
    assert dict(zip(header, lines[-1], strict=True))["users_accuracy"] == ""
    with Image.open(tmp_path / "out/evaluation.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    if count == 2:
        again = write_report(evaluation(count, fitted), tmp_path / "again")
        assert [p.read_bytes() for p in again] == [p.read_bytes() for p in written]
    # nothing runs over the edge: there is a margin all around
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all()
    assert (pixels != 255).any(axis=2).mean() > 0.05


def test_tables_come_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "mapper.training.figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"install mapper\[train\]"):
        write_report(evaluation(2), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "evaluation.json",
        "confusion.csv",
        "classes.csv",
    }
