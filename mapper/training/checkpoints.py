"""Checkpoints of a training: of its last epoch and of its best, wherever the folder lies."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from mapper.errors import ModelError
from mapper.recipe.training import Train


@dataclass(frozen=True, slots=True)
class LastCheckpoint:
    """Where a training can go on."""

    path: Path
    epoch: int
    """Of the last whole epoch, from 0."""


class Kept(ModelCheckpoint):  # type: ignore[misc]
    """A checkpoint that still knows its best score after its folder was moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What was kept, at the place where it is now."""
        here, there = str(self.dirpath), str(state_dict.get("dirpath"))

        def moved(value: Any) -> Any:
            if isinstance(value, str) and value.startswith(there):
                return here + value[len(there) :]
            if isinstance(value, dict):
                return {moved(k): v for k, v in value.items()}
            return value

        super().load_state_dict({key: moved(value) for key, value in state_dict.items()})


def checkpoints(folder: Path, monitor: str = "miou") -> list[ModelCheckpoint]:
    """Callbacks; the last epoch has one of its own, whether or not it is the best."""
    kept: Any = {"enable_version_counter": False, "save_on_train_epoch_end": True}
    best = Kept(folder.resolve(), "best", monitor=monitor, mode="max", **kept)
    return [best, Kept(folder.resolve(), "last", save_top_k=1, **kept)]


def last_checkpoint(folder: Path) -> LastCheckpoint | None:
    """The one to go on from. Raises: ModelError where it is damaged."""
    import torch

    path = folder / "last.ckpt"
    if not path.exists():
        return None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        return LastCheckpoint(path, int(stored["epoch"]))
    # torch raises what zip files, pickles and keys raise
    except Exception as reason:
        raise ModelError(
            f"{path} is damaged ({type(reason).__name__}); delete the folder and train anew"
        ) from reason


def over(journal: list[dict[str, float]], epoch: int, settings: Train) -> bool:
    """True where a training came to its end, though what follows on it may not have been done."""
    lines = [line for line in journal if line["epoch"] <= epoch]
    if len(lines) >= settings.epochs:
        return True
    if not settings.patience or not lines:
        return False
    best = max(range(len(lines)), key=lambda k: (lines[k]["miou"], -k))
    return len(lines) - 1 - best >= settings.patience
