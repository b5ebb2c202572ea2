"""Where a run's tasks are to be carried out, as the command line says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from mapper.errors import UsageError

Kind = Literal["local", "cuda", "slurm", "kubernetes", "ssh", "address"]
KINDS: tuple[str, ...] = tuple(kind for kind in get_args(Kind) if kind != "address")
"""What `--cluster` may be, beside the address of a scheduler."""

NET: Mapping[str, float] = {"NET": 1}
"""What a step that reads archives takes of a worker that may reach them; one that offers NET=4
reads four at a time."""
GPU: Mapping[str, float] = {"GPU": 1}
"""What a step takes that runs a model on an accelerator."""
DASHBOARD = "127.0.0.1:8787"
PATIENCE = 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """One cluster. Everything finer (TLS, images, queues) is Dask's own configuration."""

    where: str = "local"
    """A kind, or the address of a scheduler that is there already."""
    workers: int | None = None
    """How many to start; of the kind's own number by default."""
    dashboard: str = DASHBOARD
    """Where the dashboard listens; its port is left for any free one where it is taken."""
    offers: Mapping[str, float] = field(default_factory=dict)
    """Resources that workers of this machine are said to have."""
    patience: float = PATIENCE
    """Seconds to wait for a worker that can do what waits, before the run is given up."""

    def __post_init__(self) -> None:
        if self.kind == "address" and "://" not in self.where:
            raise UsageError(
                f"--cluster {self.where!r} is neither one of {', '.join(KINDS)} nor the address of "
                "a scheduler like tcp://127.0.0.1:8786"
            )
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}; a cluster has one at least")

    @property
    def kind(self) -> Kind:
        """What `where` names."""
        return self.where if self.where in KINDS else "address"  # type: ignore[return-value]
