"""Writes the generated parts of the documents; `--check` fails where one is out of date."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from typer.main import get_command

from mapper.cli.commands import app
from mapper.inference.card import load_card, shipped_models
from mapper.recipe import load_recipe, shipped_recipes

ROOT = Path(__file__).resolve().parent.parent


def recipes_table() -> str:
    """The recipes that come with mapper."""
    rows = ["| recipe | pixel | sources | model | what |", "|---|---|---|---|---|"]
    for path in shipped_recipes():
        recipe = load_recipe(path.stem)
        sources = ", ".join(
            f"{name} (optional)" if source.optional else name
            for name, source in recipe.sources.items()
        )
        rows.append(
            f"| `{recipe.name}` | {recipe.resolution:g} m | {sources} | `{recipe.model}` "
            f"| {recipe.title} |"
        )
    return "\n".join(rows)


def models_table() -> str:
    """The models that come with mapper."""
    rows = ["| model | form | needs | can use | classes | licence |", "|---|---|---|---|---|---|"]
    for folder in shipped_models():
        card = load_card(folder.name)
        extra = [band for band in card.bands if band not in card.required]
        classes = ", ".join(entry.name for entry in card.classes.classes)
        rows.append(
            f"| `{card.name}` | {card.form} | {', '.join(card.required)} "
            f"| {', '.join(extra) or '-'} | {classes} | {card.license} |"
        )
    return "\n".join(rows)


def command_reference() -> str:
    """Every verb with its options."""
    group = get_command(app)
    parts = []
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        parts.append(f"## mapper {name}\n\n{command.help}\n\n| option | meaning |\n|---|---|")
        for parameter in command.params:
            names = ", ".join(f"`{n}`" for n in [*parameter.opts, *parameter.secondary_opts])
            default = parameter.default
            shown = (
                "" if default in (None, False, (), []) or parameter.required else f" ({default})"
            )
            needed = " **required**" if parameter.required else ""
            parts[-1] += f"\n| {names} | {getattr(parameter, 'help', '') or ''}{shown}{needed} |"
    return "\n\n".join(parts)


GENERATED: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"recipes": recipes_table, "models": models_table},
    "docs/cli.md": {"cli": command_reference},
}


def main() -> int:
    """Write, or check, every generated part."""
    stale = []
    for name, parts in GENERATED.items():
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = before
        for part, make in parts.items():
            begin, end = f"<!-- generated: {part} -->", "<!-- end -->"
            pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
            block = f"{begin}\n{make()}\n{end}"
            after = pattern.sub(lambda _, block=block: block, after)  # type: ignore[misc]
        if after != before:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
