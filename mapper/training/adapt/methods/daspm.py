"""DASPM, whose core is DAFormer's: a teacher's labels, mixed with the source."""

from dataclasses import replace

import torch
from torch import Tensor

from mapper.recipe.learning import Optimizer, Schedule
from mapper.recipe.training import Train
from mapper.training.adapt.distance import feature_distance, last_features
from mapper.training.adapt.method import Labelled, Method, Moment, supervised_loss
from mapper.training.adapt.mixing import class_mix
from mapper.training.adapt.pseudo import confident
from mapper.training.adapt.strong import Palette, strong
from mapper.training.adapt.teacher import Teacher
from mapper.training.losses import weighted_entropy
from mapper.training.networks import Supervised
from mapper.training.networks.network import Criterion


class Daspm(Method):
    """DAFormer's self-training (Hoyer et al. 2022, arXiv 2111.14887) as DASPM uses it.

    The teacher, a moving mean of the student, labels target patches; half of the source's classes
    are pasted onto them, the whole is strongly changed, and the student learns it, the target's
    part weighted by how many pixels the teacher is sure of. Features stay near those of the
    pretrained backbone, where there is one. No rows are left out: the view is from above.
    """

    def __init__(self, student: Supervised, train: Train, criterion: Criterion) -> None:
        """See `Method`."""
        super().__init__(student, train, criterion)
        self.how = train.adapt.daspm
        self.teacher = Teacher(student)
        self.distance = feature_distance(student, train) if self.how.distance else None
        self.palette = Palette.of(train)

    @property
    def optimizer(self) -> Optimizer:
        """AdamW as published, the head ten times as fast."""
        return self.how.optimizer

    @property
    def schedule(self) -> Schedule:
        """Linear after a warm-up, as published."""
        return self.how.schedule

    def losses(self, source: Labelled, target: Labelled, moment: Moment) -> dict[str, Tensor]:
        """See `Method`."""
        self.teacher.update(self.student, moment.step, self.how.momentum)
        found = {"source_loss": supervised_loss(self.student, source, self.criterion)}
        if self.distance is not None:
            features = last_features(self.student, source.image, source.valid)
            entered = self.student.channels(source.image, source.valid)
            found["distance_loss"] = self.how.distance * self.distance(features, entered)
        shares = self.teacher.probabilities(target.image, target.valid)
        label, sure = confident(shares, target.valid, self.how.threshold)
        guessed = replace(target, label=label, weight=torch.ones_like(target.weight) * sure)
        mixed = class_mix(source, guessed, self.how.mixing.classes)
        image = strong(mixed.image, mixed.valid, self.palette, self.how.mixing)
        logits = self.student(image, mixed.valid)
        found["target_loss"] = weighted_entropy(logits, mixed.label, mixed.weight)
        return found
