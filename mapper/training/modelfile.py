"""The YAML that comes with a checkpoint or graph from elsewhere, and says what it is."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator

from mapper.errors import ModelError
from mapper.inference.card import Activation, Head
from mapper.recipe.section import Section, problems
from mapper.recipe.training import Card, ClassEntry, Network, Train
from mapper.training.keymaps import WeightLayout
from mapper.transport.address import unsigned

SLUG = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
_MOST_BYTES = 2_000_000_000
_LIKE_TRAIN = ("bands", "required", "scaling", "fill", "data_type", "classes", "window")


def _of_train(name: str) -> Any:
    """A field as the `train` section of a recipe has it: its default, bounds and description."""
    return Train.model_fields[name]


class Source(Section):
    """Where a model comes from."""

    href: str = Field(default="", description="Address; its query and user are not kept")
    citation: str = Field(default="", description="How to cite the model, e.g. a DOI")


class Graph(Section):
    """What an ONNX graph or TorchScript is, beyond what it says itself."""

    image_input: str | None = Field(
        default=None, description="Input that takes the image; the only one by default"
    )
    validity_input: str | None = Field(
        default=None, description="Input of the image's shape that says what is data"
    )
    output: str | None = Field(default=None, description="Output; the only one by default")
    activation: Activation = Field(
        default="softmax", description="What turns the output into probabilities"
    )
    head: Head = Field(default="classes", description="What the output means")
    receptive_field: int | None = Field(
        default=None, ge=1, description="Pixels across; measured in any case, and never less"
    )
    global_context: bool = Field(
        default=False, description="Every output depends on the whole window; then not measured"
    )
    shape: tuple[int | None, int | None] = Field(
        default=(None, None), description="Batch and side that TorchScript was traced for"
    )
    architecture: str = Field(default="not stated", description="Name of the network")


class ModelFile(Card):
    """A model from elsewhere: what it takes, what it yields, whose it is."""

    name: str = Field(
        pattern=f"^{SLUG}$",
        min_length=3,
        description="Lower case letters, digits and dashes, a letter first",
    )
    network: Network | None = Field(
        default=None, description="Network of ours that takes the weights of a checkpoint"
    )
    graph: Graph | None = Field(default=None, description="Of an ONNX graph or TorchScript")
    layout: WeightLayout | None = Field(
        default=None, description="How the weights are named; seen by the names by default"
    )
    temperature: float = Field(default=1.0, gt=0, description="Logits are divided by it")
    source: Source = Source()
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-fA-F]{64}$", description="Of the file; checked before all"
    )
    bytes: int = Field(default=_MOST_BYTES, ge=1, description="Most that is fetched")
    bands: list[str] = _of_train("bands")
    required: list[str] | None = _of_train("required")
    scaling: list[dict[str, Any] | None] = _of_train("scaling")
    fill: float = _of_train("fill")
    data_type: str = _of_train("data_type")
    classes: list[ClassEntry] = _of_train("classes")
    window: dict[str, Any] = _of_train("window")

    @field_validator("window")
    @classmethod
    def _side_is_pixels(cls, window: dict[str, Any]) -> dict[str, Any]:
        size = window.get("size", 256)
        if not isinstance(size, int) or size < 16:
            raise ValueError(f"size {size!r}; give pixels, 16 or more")
        return window

    @property
    def train(self) -> Train:
        """The same as a section of a recipe; a graph's network is named for form's sake."""
        return Train(
            network=self.network or Network(name="unet"),
            card=Card(**{name: getattr(self, name) for name in Card.model_fields}),
            **{name: getattr(self, name) for name in _LIKE_TRAIN},
        )

    def origin(self, href: str) -> str:
        """The address to keep: the stated one, else where the file was fetched."""
        return unsigned(self.source.href) or href


def read_model_file(path: Path) -> ModelFile:
    """The YAML of a model. Raises: ModelError with every problem of it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = ModelFile.model_validate(content)
        # bands, scaling and classes have to fit each other by the rules of recipes
        found.train.table  # noqa: B018
    except OSError as reason:
        raise ModelError(f"{path} cannot be read: {reason.strerror}") from reason
    except (yaml.YAMLError, UnicodeDecodeError) as reason:
        raise ModelError(f"{path} is no YAML: {reason}") from reason
    except ValidationError as reason:
        raise ModelError(f"{path}: {problems(reason, 'model')}") from reason
    return found


def is_slug(name: str) -> bool:
    """True for names that can be a folder of a model, and never a path."""
    return len(name) >= 3 and re.fullmatch(SLUG, name) is not None
