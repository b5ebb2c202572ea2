"""What every method of adaptation is: losses over a labelled source and an unlabelled target."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mapper.recipe.learning import Optimizer, Schedule
from mapper.recipe.training import Train
from mapper.training.networks import Supervised
from mapper.training.networks.network import Criterion, Segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A batch of one domain; each pixel's label and how much it counts."""

    image: Tensor
    """`(batch, band, y, x)` float32, scaled."""
    valid: Tensor
    """The same shape, 1.0 where the image is data."""
    label: Tensor
    """`(batch, y, x)` int64 channels, -1 where nothing is known."""
    weight: Tensor
    """`(batch, y, x)` float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How far an adaptation has come, all counted from 0."""

    epoch: int
    epochs: int
    step: int


class Method(nn.Module):
    """One way to adapt. Its own modules (teacher, discriminator) are part of every checkpoint."""

    learns = True
    """False where no weight is moved by a gradient: there are no epochs then."""
    kept = "network."
    """Prefix, in the checkpoint, of the weights that are the result."""

    def __init__(self, student: Supervised, train: Train, criterion: Criterion) -> None:
        """The student belongs to the caller: it is no part of this module's parameters."""
        super().__init__()
        self._student = [student]
        self.train_section = train
        self.criterion = criterion

    @staticmethod
    def scales(train: Train) -> bool:
        """True where each domain is scaled by its own statistics, in prediction too."""
        return False

    @property
    def student(self) -> Supervised:
        """The network that learns."""
        return self._student[0]

    @property
    def result(self) -> Supervised:
        """The network that is judged and kept."""
        return self.student

    @property
    def optimizer(self) -> Optimizer:
        """How the student is moved."""
        return self.train_section.optimizer

    @property
    def schedule(self) -> Schedule:
        """How its rate falls."""
        return self.train_section.schedule

    def others(self) -> list[torch.optim.Optimizer]:
        """Optimisers of what learns beside the student."""
        return []

    def losses(self, source: Labelled, target: Labelled, moment: Moment) -> dict[str, Tensor]:
        """What is minimised together, by name. The target's labels are all -1."""
        raise NotImplementedError


def supervised_loss(student: Supervised, batch: Labelled, criterion: Criterion) -> Tensor:
    """Of a labelled batch, with what the network adds of its own (points)."""
    return student.loss(batch.image, batch.valid, batch.label, criterion)


def loss_and_logits(
    student: Supervised, batch: Labelled, criterion: Criterion
) -> tuple[Tensor, Tensor]:
    """The same loss, and logits without a gradient; one forward where the network allows it."""
    if type(student.network).loss is Segmenter.loss:
        logits = student(batch.image, batch.valid)
        return criterion(logits, batch.label), logits.detach()
    loss = supervised_loss(student, batch, criterion)
    with torch.no_grad():
        logits = student(batch.image, batch.valid)
    return loss, logits


def joined(source: Labelled, target: Labelled) -> tuple[Tensor, Tensor]:
    """Both domains as one batch, the source first: they share what is normalised over it."""
    image = torch.cat([source.image, target.image])
    return image, torch.cat([source.valid, target.valid])
