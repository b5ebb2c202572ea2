"""Which finished versions of a run are meant: one a city, of one product."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from mapper.area.grid import plain_number
from mapper.errors import DataError, UsageError
from mapper.run.layout import Version, all_versions
from mapper.run.publish import read_item
from mapper.run.samples.cut import CityCube


def latest_versions(run: Path, names: Sequence[str], product: str | None) -> list[Version]:
    """The latest finished version of each city, by slug.

    Args:
        run: what `run --out` named.
        names: names or slugs of cities; all where empty.
        product: recipe and period; may be left out where there is one.

    Raises: UsageError where nothing is mapped, or a city or product is not among what is.
    """
    finished = [version for version in all_versions(run) if version.published]
    if not finished:
        raise UsageError(f"{run} holds no finished map; give what --out of a run named")
    chosen = _of_cities(finished, names)
    products = sorted({version.product for version in chosen})
    wanted = product or products[0]
    if wanted not in products:
        raise UsageError(f"no city has product {wanted!r}; there are {', '.join(products)}")
    if not product and len(products) > 1:
        raise UsageError(f"there are {', '.join(products)}; choose one with --product")
    # versions come by number, so the latest stays
    latest = {version.slug: version for version in chosen if version.product == wanted}
    return [latest[slug] for slug in sorted(latest)]


def check_alike(cubes: Sequence[CityCube], remedy: str) -> None:
    """Raise DataError, with what to do, unless one city's pixels are as large as another's."""
    for cube in cubes[1:]:
        if cube.grid.resolution != cubes[0].grid.resolution:
            sizes = [f"{c.slug} {plain_number(c.grid.resolution)} m" for c in (cubes[0], cube)]
            raise DataError(f"the cities differ in resolution ({', '.join(sizes)}){remedy}")


def _of_cities(versions: Sequence[Version], names: Sequence[str]) -> list[Version]:
    if not names:
        return list(versions)
    known: dict[str, set[str]] = {}
    for version in versions:
        title = str(read_item(version)["properties"]["mapper:city"])  # type: ignore[index]
        known.setdefault(version.slug, {version.slug}).add(title.casefold())
    wanted = {name.casefold() for name in names}
    for name in names:
        if not any(name.casefold() in called for called in known.values()):
            near = get_close_matches(name.casefold(), known, n=3)
            hint = (
                f"; did you mean {', '.join(near)}?" if near else f"; there are {', '.join(known)}"
            )
            raise UsageError(f"no mapped city is called {name!r}{hint}")
    return [version for version in versions if known[version.slug] & wanted]
