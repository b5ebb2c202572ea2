"""What moves no weight: the source's model as it is, and with the target's statistics."""

from mapper.training.adapt.method import Method


class SourceOnly(Method):
    """No adaptation: what the others are held against."""

    learns = False


class AdaptedStatistics(Method):
    """AdaBN (Li et al. 2018, doi 10.1016/j.patcog.2018.03.005).

    Every batch normalisation takes mean and variance over patches of the target instead of those
    that it met in training. Networks without batch normalisation stay as they are.
    """

    learns = False
