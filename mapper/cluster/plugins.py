"""What every worker of a run is told, one that joins later too."""

import os
from typing import Any

from distributed import WorkerPlugin

from mapper.catalog.pyramid import WORKERS as TILE_WORKERS
from mapper.inference.devices import cuda_devices

TILE_RATE = "mapper-tile-rate"
DEVICES = "mapper-devices"


def share_tile_rate(workers: int) -> None:
    """Let this process, and those it starts, take its part of a tile service's rate."""
    os.environ[TILE_WORKERS] = str(workers)


class TileRate(WorkerPlugin):  # type: ignore[misc]
    """Takes a part of a tile service's rate that leaves as much to each of the others."""

    def __init__(self, workers: int) -> None:
        """How many share."""
        self.workers = workers

    def setup(self, worker: Any) -> None:
        """See `share_tile_rate`."""
        del worker
        share_tile_rate(self.workers)


class Devices(WorkerPlugin):  # type: ignore[misc]
    """Offers the resource GPU where a worker sees a CUDA device and nobody has said so before.

    One, whatever it sees: a model runs on the first device of its process.
    """

    async def setup(self, worker: Any) -> None:
        """Tell the scheduler."""
        if cuda_devices() and "GPU" not in worker.state.total_resources:
            await worker.set_resources(GPU=1)
