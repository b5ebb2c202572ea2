"""What every training asks of Lightning: one place for its switches."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from mapper.errors import DeviceError, UsageError
from mapper.recipe.training import Train

Device = Literal["auto", "cpu", "cuda"]


def check_device(device: str) -> None:
    """Refuse a device that is not there. Raises: UsageError, DeviceError."""
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device!r}; a network learns on cpu or cuda, or auto")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("PyTorch sees no CUDA device here; use --device cpu")


def network_device(device: Device) -> str:
    """Where a network runs outside of a trainer: what `auto` comes to here."""
    import torch

    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def first_process() -> bool:
    """True in the process that was started by the user.

    Lightning runs the whole command once more for every further device. Those learn along: what is
    held, written or printed is the first one's.
    """
    return os.environ.get("LOCAL_RANK", "0") == "0"


def make_trainer(
    out: Path,
    train: Train,
    epochs: int,
    callbacks: Sequence[Any],
    where: tuple[Device, int],
    parallel: str = "ddp",
) -> Any:
    """A trainer that resumes exactly and says nothing itself.

    Args:
        out: folder of the training.
        train: says the precision.
        epochs: in all.
        callbacks: the one that writes checkpoints last, so that what the others keep is in them.
        where: device, and how many of them.
        parallel: Lightning's name of how several devices work together.
    """
    import lightning
    from lightning.pytorch.loggers import TensorBoardLogger

    device, devices = where
    return lightning.Trainer(
        accelerator=device,
        devices=devices,
        strategy=parallel if devices > 1 else "auto",
        precision=train.precision,
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=TensorBoardLogger(str(out), name="tensorboard", version=""),
        deterministic="warn",
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning advises at length, and leaves settings of PyTorch behind; neither is kept."""
    import torch

    exact = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    noisy = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
    levels = [n.level for n in noisy]
    for one in noisy:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(exact, warn_only=warned)
        for one, level in zip(noisy, levels, strict=True):
            one.setLevel(level)
