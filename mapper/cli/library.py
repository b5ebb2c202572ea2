"""`mapper recipes`, `recipe show`, `models` and `models add`: what there is to run."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mapper.cli.options import Json, TrustModel
from mapper.cli.output import human_bytes, print_json, print_table, show_events
from mapper.errors import ModelError
from mapper.recipe import Recipe, load_recipe, shipped_recipes

if TYPE_CHECKING:
    from mapper.inference.card import ModelCard

RECIPE_COLUMNS = ["recipe", "pixel", "input", "model", "classes", "licence", "weights", "title"]
MODEL_COLUMNS = ["model", "forms", "needs", "can use", "classes", "licence", "size", "weights"]

recipe_app = typer.Typer(
    name="recipe", help="Look into a recipe.", no_args_is_help=True, rich_markup_mode=None
)
models_app = typer.Typer(
    name="models", help="List models, or add one from elsewhere.", rich_markup_mode=None
)


def recipes(json: Json = False) -> None:
    """List the recipes that come with mapper."""
    found = [load_recipe(path.stem) for path in shipped_recipes()]
    if json:
        print_json([recipe.model_dump(mode="json") for recipe in found])
        return
    print_table([recipe_row(r) for r in found], RECIPE_COLUMNS)


def recipe_row(recipe: Recipe) -> list[str]:
    """One line about a recipe, by `RECIPE_COLUMNS`."""
    from mapper.inference.card import load_card

    sources = [f"{name} (optional)" if s.optional else name for name, s in recipe.sources.items()]
    try:
        card = load_card(recipe.model)
        classes, weights = [c.name for c in card.classes.classes], weights_of(card)
    except ModelError:
        classes = [c.name for c in recipe.train.classes] if recipe.train else []
        weights = "not shipped: train it"
    return [
        recipe.name,
        f"{recipe.resolution:g} m",
        ", ".join(sources),
        recipe.model,
        _few(classes),
        recipe.license,
        weights,
        recipe.title,
    ]


def model_row(card: "ModelCard") -> list[str]:
    """One line about a model, by `MODEL_COLUMNS`."""
    extra = [band for band in card.bands if band not in card.required]
    forms = dict.fromkeys(
        a.form if a.precision == "float32" else f"{a.form} {a.precision}" for a in card.artifacts
    )
    return [
        card.name,
        ", ".join(forms),
        ", ".join(card.required),
        ", ".join(extra) or "-",
        _few([c.name for c in card.classes.classes]),
        card.license,
        human_bytes(card.artifact.path.stat().st_size),
        weights_of(card),
    ]


def weights_of(card: "ModelCard") -> str:
    """Where a model's weights come from."""
    properties = card.item["properties"]
    if training := properties.get("mapper:training"):
        return f"trained on {training.get('data', {}).get('set', 'data not named')}"
    if origin := properties.get("mapper:origin"):
        return f"added from {origin.get('href', 'elsewhere')}"
    if properties.get("mlm:total_parameters") == 0:
        return "none: written rules"
    return "not stated"


def _few(names: list[str]) -> str:
    """Names of classes, those beyond eight counted."""
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


@recipe_app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a recipe, or path of one")],
    schema: Annotated[bool, typer.Option(help="Print the JSON Schema of recipes instead")] = False,
    json: Json = False,
) -> None:
    """Print a recipe with every default written out."""
    import yaml

    recipe = load_recipe(name)
    if schema:
        print_json(Recipe.model_json_schema())
    elif json:
        print_json(recipe.model_dump(mode="json"))
    else:
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        typer.echo(text, nl=False)


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, json: Json = False) -> None:
    """List the models that come with mapper, and those that were added."""
    if context.invoked_subcommand:
        return
    from mapper.inference.card import load_card, shipped_models, user_models

    found = [load_card(str(folder)) for folder in [*shipped_models(), *user_models()]]
    if json:
        print_json([card.item for card in found])
        return
    print_table([model_row(card) for card in found], MODEL_COLUMNS)


@models_app.command()
def add(
    source: Annotated[str, typer.Argument(help="Checkpoint or graph: a path or an address")],
    card: Annotated[Path, typer.Option(help="YAML that says what it expects and yields")],
    name: Annotated[str | None, typer.Option(help="Of the model; the YAML's by default")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Model folder; the user's own by default")
    ] = None,
    trust_model: TrustModel = False,
    json: Json = False,
) -> None:
    """Make a model folder of a checkpoint or graph from elsewhere; pickles are never run."""
    from mapper.training.adopt import AdoptOptions, adopt_model

    options = AdoptOptions(source=source, card=card, name=name, out=out, trust_model=trust_model)
    with show_events(json) as listener:
        found = adopt_model(options, listener)
    if json:
        content: dict[str, Any] = asdict(found)
        print_json(content | {"folder": str(found.folder)})
    else:
        typer.echo(str(found.folder))
