"""An evaluation as files: JSON, two tables as CSV, and a figure."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from mapper.errors import UsageError
from mapper.store.files import write_json, write_text
from mapper.training.evaluate import Evaluation


def write_report(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write `evaluation.json`, `confusion.csv`, `classes.csv` and `evaluation.png`.

    The figure comes last: where matplotlib is missing, the other files are there.

    Raises: StoreError where the disk refuses; UsageError where matplotlib is missing.
    """
    from mapper.inference.folder import write_file

    paths = [folder / "evaluation.json", folder / "confusion.csv", folder / "classes.csv"]
    write_json(paths[0], evaluation.to_dict())
    write_text(paths[1], confusion_csv(evaluation))
    write_text(paths[2], classes_csv(evaluation))
    try:
        from mapper.training.figure import draw
    except ImportError as reason:
        raise UsageError(
            "evaluation.png needs matplotlib: install mapper[train]; the tables are written to "
            f"{folder}"
        ) from reason
    figure = draw(evaluation)

    def save(attempt: Path) -> None:
        # without the version of the library, which says nothing about the model
        figure.savefig(attempt, dpi=120, metadata={"Software": None})

    write_file(folder / "evaluation.png", save)
    return [*paths, folder / "evaluation.png"]


def confusion_csv(evaluation: Evaluation) -> str:
    """Pixels of each pair: one line a class of the reference, one column a class of the map."""
    names = [c.name for c in evaluation.scores.classes]
    rows = zip(names, evaluation.scores.matrix, strict=True)
    return _csv(["reference", *names], ([name, *row] for name, row in rows))


def classes_csv(evaluation: Evaluation) -> str:
    """One line a class; a cell is empty where its figure is not defined."""
    header = ["name", "pixels", "mapped", "iou", "f1", "users_accuracy", "producers_accuracy"]
    rows = [
        [c.name, c.pixels, c.mapped, *map(_rounded, (c.iou, c.f1, c.users, c.producers))]
        for c in evaluation.scores.classes
    ]
    return _csv(header, rows)


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 6)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
