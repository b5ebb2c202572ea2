"""Recipes by name or path."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from mapper.errors import RecipeError
from mapper.recipe.recipe import Recipe
from mapper.recipe.section import problems


def load_recipe(name: str) -> Recipe:
    """A recipe by the name of a shipped one, or by path.

    Raises: RecipeError with every problem of the file.
    """
    path = _find_recipe(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Recipe.model_validate(content)
    except OSError as reason:
        raise RecipeError(f"{path} cannot be read: {reason.strerror}") from reason
    except (yaml.YAMLError, UnicodeDecodeError) as reason:
        raise RecipeError(f"{path} is no YAML: {reason}") from reason
    except ValidationError as reason:
        raise RecipeError(f"{path}: {problems(reason, 'recipe')}") from reason


def data_directory(kind: Literal["pipelines", "models"]) -> Path:
    """The folder of shipped recipes or models, in a checkout or an installed wheel."""
    package = Path(str(files("mapper")))
    installed = package / "_data" / kind
    return installed if installed.is_dir() else package.parent / kind


def shipped_recipes() -> list[Path]:
    """Recipes that come with mapper."""
    return sorted(data_directory("pipelines").glob("*.yaml"))


def _find_recipe(name: str) -> Path:
    if re.fullmatch(r"[A-Za-z0-9-]+", name):
        path = data_directory("pipelines") / f"{name}.yaml"
        if path.is_file():
            return path
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    known = ", ".join(p.stem for p in shipped_recipes())
    raise RecipeError(f"no recipe {name!r}; shipped are {known}; or give a path to a .yaml file")
