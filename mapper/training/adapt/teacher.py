"""A teacher: the moving mean of a student, which labels the target for it."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from mapper.errors import ModelError
from mapper.training.networks import Supervised

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Teacher(nn.Module):
    """A copy of the student whose parameters follow it slowly (Tarvainen & Valpola 2017).

    Running statistics of batch normalisation are not averaged. The teacher has its own, which it
    takes from what it is shown: a teacher that only sees the target carries the target's.
    """

    def __init__(self, student: Supervised) -> None:
        """Copies the student; the copy never takes a gradient."""
        super().__init__()
        self.copy = deepcopy(student)
        for parameter in self.copy.parameters():
            parameter.requires_grad_(False)
        self.copy.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Whatever the mode of the module around it, dropout and stochastic depth stay off."""
        super().train(mode)
        self.copy.eval()
        return self

    def update(self, student: Supervised, step: int, momentum: float) -> None:
        """Parameters to a * teacher + (1 - a) * student, a = min(1 - 1 / (step + 1), momentum).

        `step` is counted from 0, so that the first step copies; buffers stay.
        """
        share = 1 - min(1 - 1 / (step + 1), momentum)
        pairs = zip(self.copy.parameters(), student.parameters(), strict=True)
        with torch.no_grad():
            for own, new in pairs:
                own.lerp_(new, share)

    def probabilities(self, image: Tensor, valid: Tensor | None) -> Tensor:
        """Softmax `(batch, class, y, x)` float32, without a gradient.

        Batch normalisation goes by the statistics of this batch and notes them in its own.

        Raises: ModelError for fewer images than can be normalised together.
        """
        least = self.copy.network.least_batch
        if len(image) < least:
            raise ModelError(
                f"a batch of {len(image)} of the target; the network normalises means over the "
                f"window, which takes {least} images at once: raise train.adapt.batch"
            )
        norms = [m for m in self.copy.modules() if isinstance(m, _NORMS)]
        for norm in norms:
            norm.train()
        try:
            with torch.no_grad():
                logits = self.copy(image, valid)
        finally:
            for norm in norms:
                norm.eval()
        return logits.float().softmax(dim=1)

    def weights(self) -> Supervised:
        """The copy itself, not a further one: ready to predict with, its parameters frozen."""
        return self.copy
