"""Methods of adaptation by the names of recipes; a file each."""

from mapper.recipe.training import Train
from mapper.training.adapt.method import Method
from mapper.training.adapt.methods.adversarial import Adversarial
from mapper.training.adapt.methods.consistent import Consistent
from mapper.training.adapt.methods.daspm import Daspm
from mapper.training.adapt.methods.dpa import Dpa
from mapper.training.adapt.methods.unlearned import AdaptedStatistics, SourceOnly
from mapper.training.networks import Supervised
from mapper.training.networks.network import Criterion

METHODS: dict[str, type[Method]] = {
    "source": SourceOnly,
    "adabn": AdaptedStatistics,
    "dpa": Dpa,
    "daspm": Daspm,
    "adversarial": Adversarial,
    "consistent": Consistent,
}


def build_method(student: Supervised, train: Train, criterion: Criterion) -> Method:
    """The method that the recipe asks for, around a student."""
    return METHODS[train.adapt.method](student, train, criterion)
