"""Published weights into a network of ours, and back; nothing is left out unsaid."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mapper.errors import ModelError
from mapper.training.keymaps import KeyMap, Place, State

_COUNTER = "num_batches_tracked"
"""Counted in training, of no use after it; old checkpoints do not have it."""
_SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weight:
    """A published tensor, and those of ours that it holds."""

    published: str
    ours: tuple[str, ...]
    linear: bool


def to_ours(layout: KeyMap, published: Mapping[str, Tensor], network: nn.Module) -> State:
    """The state of a network of ours, from published weights.

    Raises: ModelError naming what is missing, has no place, or is of another shape.
    """
    wanted = network.state_dict()
    weights = _weights(layout, network, wanted)
    given = {n: t for n, t in published.items() if not n.startswith(layout.dropped)}
    given = layout.prepared(given, wanted)
    for weight in weights:
        if weight.published.endswith(_COUNTER):
            given.setdefault(weight.published, torch.zeros_like(wanted[weight.ours[0]]))
    _check_names(layout, given, [weight.published for weight in weights])
    made: State = {}
    for weight in weights:
        made |= _pieces(weight, given[weight.published], wanted)
    _check_shapes(layout, made, wanted)
    return made


def to_published(layout: KeyMap, network: nn.Module) -> State:
    """The weights of a network of ours under their published names."""
    state = network.state_dict()
    made: State = {}
    for weight in _weights(layout, network, state):
        parts = [state[name] for name in weight.ours]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        flat = weight.linear and whole.dim() == 4
        made[weight.published] = whole.flatten(1) if flat else whole
    return made


def _weights(layout: KeyMap, network: nn.Module, state: Mapping[str, Tensor]) -> list[_Weight]:
    """Every tensor of the network, by the layout's table. Raises: ModelError where one has none."""
    if not isinstance(network, layout.kind):
        raise ModelError(
            f"layout {layout.name} is of the network {layout.network or layout.kind.__name__}, "
            f"not of {type(network).__name__}; name that one as `network`"
        )
    leaves: dict[str, list[str]] = {}
    for name in state:
        module, _, leaf = name.rpartition(".")
        leaves.setdefault(module, []).append(leaf)
    found = [w for place in layout.places(network) for w in _of(place, leaves)]
    without = set(state) - {name for weight in found for name in weight.ours}
    if without:
        raise ModelError(
            f"layout {layout.name} does not know {_few(sorted(without))} of the network: the "
            "transformers that is installed names its modules otherwise; install the newest"
        )
    return found


def _of(place: Place, leaves: Mapping[str, Sequence[str]]) -> Iterator[_Weight]:
    """Parameters of a place; none where this network has no such module."""
    for leaf in leaves.get(place.ours[0], ()):
        yield _Weight(
            published=f"{place.published}.{leaf}",
            ours=tuple(f"{module}.{leaf}" for module in place.ours),
            linear=place.linear,
        )


def _pieces(weight: _Weight, tensor: Tensor, wanted: Mapping[str, Tensor]) -> State:
    like = wanted[weight.ours[0]]
    if weight.linear and tensor.dim() == 2 and like.dim() == 4:
        tensor = tensor[:, :, None, None]
    if len(weight.ours) == 1:
        return {weight.ours[0]: tensor}
    return dict(zip(weight.ours, tensor.chunk(len(weight.ours)), strict=False))


def _check_names(layout: KeyMap, given: Mapping[str, Tensor], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in given]
    known = set(wanted)
    strange = [name for name in given if name not in known]
    if not missing and not strange:
        return
    said = []
    if missing:
        said.append(f"lacks {len(missing)} of {len(wanted)} weights ({_few(missing)})")
    if strange:
        said.append(f"holds {len(strange)} that have no place ({_few(strange)})")
    raise ModelError(
        f"the checkpoint does not fit layout {layout.name}: it {' and '.join(said)}; see whether "
        "`network` has the right options, or export it as ONNX"
    )


def _check_shapes(layout: KeyMap, made: State, wanted: Mapping[str, Tensor]) -> None:
    wrong = [
        f"{name} is {tuple(made[name].shape) if name in made else 'cut off'} and should be "
        f"{tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name not in made or made[name].shape != tensor.shape
    ]
    if wrong:
        raise ModelError(
            f"the checkpoint does not fit the network: {len(wrong)} weights of layout "
            f"{layout.name} have another shape ({_few(wrong)}); see whether bands, classes and "
            "`network.options` are those that it was trained with"
        )


def _few(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
