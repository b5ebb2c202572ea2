"""The `gates` part of a recipe: what a finished map has to pass before it is the latest."""

from pydantic import Field

from mapper.recipe.section import Section


class Gates(Section):
    """Bounds on a map, and on how far it may be from the last one that was released.

    They decide nothing of a pixel: a recipe with other gates makes the same maps.
    """

    coverage: float | None = Field(
        default=0.5, ge=0, le=1, description="Least share of the area that has a class"
    )
    shares: float | None = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Most that a class's share of the map may differ from the last release",
    )
    seams: float | None = Field(
        default=2.0,
        gt=0,
        description="Most changes of class from pixel to pixel on borders of tiles, for each "
        "elsewhere",
    )
    confidence: float | None = Field(
        default=0.2,
        gt=0,
        le=1,
        description="Most that the mean confidence may differ from the last release",
    )
