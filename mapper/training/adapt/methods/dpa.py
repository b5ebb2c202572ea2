"""DPA: pseudo-labels by rank of entropy, both domains in one forward."""

import torch
from torch import Tensor

from mapper.recipe.learning import Optimizer, Schedule
from mapper.recipe.training import Train
from mapper.training.adapt.method import Labelled, Method, Moment, joined
from mapper.training.adapt.pseudo import dpa_share, lowest_entropy


class Dpa(Method):
    """Dynamic pseudo-label assignment (Tong et al. 2023, doi 10.1016/j.isprsjprs.2022.12.011).

    Source and target pass the shared weights in one forward, so that batch normalisation is over
    both. Of the target's pixels those of lowest entropy teach the class they were given; their
    share grows with the epochs to a half. Both losses have the same weights of classes and count
    alike. Each domain is scaled by its own statistics, in prediction too.
    """

    @staticmethod
    def scales(train: Train) -> bool:
        """As the recipe says."""
        return train.adapt.dpa.normalise

    @property
    def optimizer(self) -> Optimizer:
        """SGD as published, unless the recipe says otherwise."""
        return self.train_section.adapt.dpa.optimizer

    @property
    def schedule(self) -> Schedule:
        """Poly as published."""
        return self.train_section.adapt.dpa.schedule

    def losses(self, source: Labelled, target: Labelled, moment: Moment) -> dict[str, Tensor]:
        """See `Method`."""
        logits = self.student(*joined(source, target))
        count = len(source.image)
        known, guessed = logits[:count], logits[count:]
        with torch.no_grad():
            share = dpa_share(moment.epoch, moment.epochs, self.train_section.adapt.dpa.share)
            label = lowest_entropy(guessed.float().softmax(dim=1), target.valid, share)
        return {
            "source_loss": self.criterion(known, source.label),
            "target_loss": self.criterion(guessed, label),
        }
