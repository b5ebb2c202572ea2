"""What every part of a recipe has in common."""

from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """A part of a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def problems(error: ValidationError, whole: str) -> str:
    """Everything that is wrong with a file, in one line; `whole` names it where no key does."""
    found = []
    for one in error.errors(include_url=False):
        where = ".".join(str(part) for part in one["loc"]) or whole
        what = "unknown key; remove it" if one["type"] == "extra_forbidden" else one["msg"]
        found.append(f"{where}: {what}")
    return "; ".join(found)
