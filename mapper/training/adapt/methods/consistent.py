"""Self-training by a teacher of the target's own statistics: the default."""

from dataclasses import replace

import torch
from torch import Tensor

from mapper.recipe.learning import Optimizer, Schedule
from mapper.recipe.training import Train
from mapper.training.adapt.masking import hidden, masked
from mapper.training.adapt.method import Labelled, Method, Moment, supervised_loss
from mapper.training.adapt.mixing import class_mix
from mapper.training.adapt.pseudo import surest_by_class
from mapper.training.adapt.strong import Palette, strong
from mapper.training.adapt.styles import restyled
from mapper.training.adapt.teacher import Teacher
from mapper.training.networks import Supervised
from mapper.training.networks.network import Criterion


class Consistent(Method):
    """Self-training on each class's surest pixels, by a teacher that knows the target alone.

    The teacher's batch normalisation only ever meets the target, and it is the teacher that is
    kept. The surest share of every class teaches (class-balanced self-training, Zou et al. 2018),
    so that a rare class is not crowded out; source patches may take the target's colours; the
    student sees strongly changed patches and may have to guess hidden squares (masked image
    consistency, Hoyer et al. 2023).
    """

    kept = "method.teacher.copy."

    def __init__(self, student: Supervised, train: Train, criterion: Criterion) -> None:
        """See `Method`."""
        super().__init__(student, train, criterion)
        self.how = train.adapt.consistent
        self.teacher = Teacher(student)
        self.palette = Palette.of(train)

    @staticmethod
    def scales(train: Train) -> bool:
        """As the recipe says."""
        return train.adapt.consistent.normalise

    @property
    def result(self) -> Supervised:
        """The teacher."""
        return self.teacher.weights()

    @property
    def optimizer(self) -> Optimizer:
        """The recipe's."""
        return self.how.optimizer

    @property
    def schedule(self) -> Schedule:
        """The recipe's."""
        return self.how.schedule

    def losses(self, source: Labelled, target: Labelled, moment: Moment) -> dict[str, Tensor]:
        """See `Method`."""
        how = self.how
        self.teacher.update(self.student, moment.step, how.momentum)
        shown = self._restyled(source, target)
        found = {"source_loss": supervised_loss(self.student, shown, self.criterion)}
        shares = self.teacher.probabilities(target.image, target.valid)
        label = surest_by_class(shares, target.valid, how.keep, how.least)
        guessed = replace(target, label=label)
        found["target_loss"] = how.weight * self._learned(shown, guessed)
        if how.masking is not None:
            size, share = target.label.shape[1:], how.masking.share
            hide = hidden(
                len(label), size[0], size[1], share, how.masking.side, target.image.device
            )
            image, valid = masked(target.image, target.valid, hide)
            loss = self.criterion(self.student(image, valid), label)
            found["masked_loss"] = how.masking.weight * loss
        return found

    def _restyled(self, source: Labelled, target: Labelled) -> Labelled:
        """The source, a share of its images in colours of the target."""
        # drawn on the CPU, alike for every device
        chosen = torch.rand(len(source.image)) < self.how.restyle
        strength = chosen.float().to(source.image.device)
        image = restyled(
            source.image,
            source.valid,
            target.image,
            target.valid,
            self.palette.light.to(source.image.device),
            strength,
        )
        return replace(source, image=image)

    def _learned(self, source: Labelled, guessed: Labelled) -> Tensor:
        """The student's loss on strongly changed patches of the target."""
        how = self.how.mixing
        if how is None:
            return self.criterion(self.student(guessed.image, guessed.valid), guessed.label)
        mixed = class_mix(source, guessed, how.classes)
        image = strong(mixed.image, mixed.valid, self.palette, how)
        return self.criterion(self.student(image, mixed.valid), mixed.label)
