"""How a model is dressed: what its input is made of, and what leaves it. Data only."""

from dataclasses import dataclass
from typing import Literal

from mapper.inference.card import ModelCard
from mapper.inference.coding import Coding

CONFIDENCE_STEPS = 250
"""Probabilities are stored as uint8: 0 to 250 for 0 to 1."""
CHECK = "check"
"""Output `(batch, channel, 1, 1)` that is not finite where any value of a channel is not."""
OURS = "mapper_"
"""Before the names of what is put into a graph, since a model may use any other."""

Weights = Literal["none", "hann", "gaussian"]
State = Literal["logits", "probabilities"]
"""What a tensor holds; numbers of a regression count as probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is decided for each pixel, beside its class and how sure that is."""

    entropy: bool = False
    probabilities: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """How a model is dressed."""

    card: ModelCard
    coding: Coding
    margin: int = 0
    """Pixels cut off on each side of the output: the halo of core crop."""
    scores: Literal["", "probabilities", "logits"] = ""
    """What leaves for further sums; empty where the decision is made in place."""
    weights: Weights = "none"
    """What scores are multiplied by."""
    side: int = 0
    """Of the window, where there are weights."""
    decision: Decision = Decision()

    @property
    def parts(self) -> tuple[object, ...]:
        """Everything but the card, to tell two dresses of one model apart."""
        where = (self.margin, self.scores, self.weights, self.side)
        return (self.coding, *where, self.decision)
