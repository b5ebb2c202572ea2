"""Corrections of a mapped city: added and taken back while nobody runs there."""

from collections.abc import Sequence
from pathlib import Path

from shapely.geometry import shape

from mapper.run.chosen import latest_versions
from mapper.run.corrections import Correction, add_corrections, drop_corrections, read_new
from mapper.run.gate import read_measures
from mapper.run.layout import Version
from mapper.run.lock import hold_folder
from mapper.run.publish import read_item


def corrected_version(run: Path, city: str, product: str | None) -> Version:
    """The newest finished version of a city. Raises: UsageError where there is none."""
    (version,) = latest_versions(run, [city], product)
    return version


def change_corrections(
    version: Version, add: Path | None, drop: Sequence[str]
) -> tuple[Correction, ...]:
    """Add those of a file, or take some back. Returns: all that are kept now.

    Raises: AreaError for a file that cannot be used; UsageError; LockedError.
    """
    with hold_folder(version.root):
        if add is None:
            return drop_corrections(version, drop)
        rows = read_measures(version)["classes"]
        classes = {row["name"]: row["value"] for row in rows if row["name"] != "nodata"}
        extent = shape(read_item(version)["geometry"])
        return add_corrections(version, read_new(add, classes, extent))
