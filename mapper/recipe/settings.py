"""Settings of the command line laid over a recipe's train section."""

from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from mapper.errors import UsageError
from mapper.recipe.recipe import Recipe
from mapper.recipe.training import Data, Train


def train_section(recipe: Recipe) -> Train:
    """How a recipe is trained. Raises: UsageError where it does not say."""
    if recipe.train is None:
        raise UsageError(
            f"recipe {recipe.name!r} has no `train` section; add one, or name another recipe"
        )
    return recipe.train


def with_samples(recipe: Recipe) -> Recipe:
    """A recipe whose data are those of `mapper samples`: they say what they hold themselves."""
    train = train_section(recipe)
    data = Data(crosswalk=train.data.crosswalk)
    return recipe.model_copy(update={"train": train.model_copy(update={"data": data})})


def changed(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """A recipe with `KEY=VALUE` pairs in its train section; a dot leads into a part of it.

    Raises: UsageError naming the setting.
    """
    train_section(recipe)
    content = recipe.model_dump(mode="json")
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting!r} is not of the form KEY=VALUE, e.g. epochs=5")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as reason:
            raise UsageError(f"--set {setting!r} is no YAML: {reason}") from reason
        _put(content["train"], key.strip().split("."), value, setting)
    try:
        return Recipe.model_validate(content)
    except ValidationError as reason:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in reason.errors(include_url=False)
        )
        raise UsageError(f"--set: {problems}") from reason


def _put(part: dict[str, Any], path: list[str], value: Any, setting: str) -> None:
    for name in path[:-1]:
        inner = part.get(name)
        if not isinstance(inner, dict):
            raise UsageError(f"--set {setting!r}: the train section has no part {name!r}")
        part = inner
    part[path[-1]] = value
