"""UGSNet's second step: a discriminator over maps, and a network that fools it."""

import torch
from torch import Tensor

from mapper.recipe.learning import Optimizer, Schedule
from mapper.recipe.training import Train
from mapper.training.adapt.discriminator import Discriminator, domain_loss, frozen_forward
from mapper.training.adapt.method import Labelled, Method, Moment, loss_and_logits
from mapper.training.networks import Supervised
from mapper.training.networks.network import Criterion


class Adversarial(Method):
    """Output-space adversarial adaptation (Tsai et al. 2018, arXiv 1802.10349).

    Step one is a training on the source alone, step three is prediction. In step two maps of the
    target are to look like maps of the source to a discriminator that learns to tell them apart.
    Both learn in one backward: the network is not moved by what the discriminator learns, nor
    the discriminator by what is to fool it.
    """

    def __init__(self, student: Supervised, train: Train, criterion: Criterion) -> None:
        """See `Method`."""
        super().__init__(student, train, criterion)
        self.how = train.adapt.adversarial
        self.discriminator = Discriminator(len(train.classes), self.how.width)

    @property
    def optimizer(self) -> Optimizer:
        """SGD, of the discriminator's paper."""
        return self.how.optimizer

    @property
    def schedule(self) -> Schedule:
        """Poly, of the discriminator's paper; the discriminator's rate falls alike."""
        return self.how.schedule

    def others(self) -> list[torch.optim.Optimizer]:
        """Adam of the discriminator."""
        parameters = self.discriminator.parameters()
        return [torch.optim.Adam(parameters, lr=self.how.rate, betas=(0.9, 0.99))]

    def losses(self, source: Labelled, target: Labelled, moment: Moment) -> dict[str, Tensor]:
        """See `Method`."""
        taught, known = loss_and_logits(self.student, source, self.criterion)
        guessed = self.student(target.image, target.valid).float().softmax(dim=1)
        fooled = domain_loss(frozen_forward(self.discriminator, guessed), source=True)
        told = [
            domain_loss(self.discriminator(known.float().softmax(dim=1)), source=True),
            domain_loss(self.discriminator(guessed.detach()), source=False),
        ]
        return {
            "source_loss": taught,
            "target_loss": self.how.weight * fooled,
            "domain_loss": 0.5 * (told[0] + told[1]),
        }
