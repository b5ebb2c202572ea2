"""Self-training by a teacher of the target's own statistics: the default."""

from dataclasses import replace

import torch
from torch import Tensor

from mapper.recipe.learning import Optimizer, Schedule
from mapper.recipe.training import Train
from mapper.training.adapt.method import Labelled, Method, Moment, supervised_loss
from mapper.training.adapt.mixing import class_mix
from mapper.training.adapt.pseudo import surest_by_class
from mapper.training.adapt.strong import Palette, strong
from mapper.training.adapt.styles import restyled
from mapper.training.adapt.teacher import Teacher
from mapper.training.networks import Supervised
from mapper.training.networks.network import Criterion

_MIRRORS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
"""Axes along which the views of a patch are mirrored."""


class Consistent(Method):
    """Self-training on each class's surest pixels, by a teacher that knows the target alone.

    The teacher's batch normalisation only ever meets the target, and it is the teacher that is
    kept. What it says is a mean over mirrored patches; the surest share of every class teaches
    (class-balanced self-training, Zou et al. 2018), so that a rare class is not crowded out.
    Source patches go part of the way to the target's colours: where they went all of it, what
    tells classes apart by their colour went too. The student sees strongly changed patches with
    classes of the source pasted in.
    """

    kept = "method.teacher.copy."

    def __init__(self, student: Supervised, train: Train, criterion: Criterion) -> None:
        """See `Method`."""
        super().__init__(student, train, criterion)
        self.how = train.adapt.consistent
        self.teacher = Teacher(student)
        self.palette = Palette.of(train)

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
        label = surest_by_class(self._guess(target), target.valid, how.keep)
        guessed = replace(target, label=label)
        found["target_loss"] = how.weight * self._learned(shown, guessed)
        return found

    def _guess(self, target: Labelled) -> Tensor:
        """The teacher's probabilities, a mean over mirrored views."""
        views = _MIRRORS[: self.how.views]
        total = torch.zeros((), device=target.image.device)
        for axes in views:
            found = self.teacher.probabilities(target.image.flip(axes), target.valid.flip(axes))
            total = total + found.flip(axes)
        return total / len(views)

    def _restyled(self, source: Labelled, target: Labelled) -> Labelled:
        """The source, as far in colours of the target as the recipe says."""
        if not self.how.restyle:
            return source
        image = restyled(
            source.image,
            source.valid,
            target.image,
            target.valid,
            self.palette.light.to(source.image.device),
            self.how.restyle,
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
