"""Indices of two or more bands, by the common names of `mapper.catalog.bands`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from mapper.errors import RecipeError
from mapper.recipe import Sentinel2Source, Source

SCALE = 10_000
"""Stored value of a reflectance of 1."""
Parts = tuple[np.ndarray, np.ndarray]
"""Numerator and denominator, float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A quotient of reflectances."""

    name: str
    bands: tuple[str, ...]
    """Common names, in the order in which `parts` takes them."""
    formula: str
    source: str
    parts: Callable[..., Parts]
    """Numerator and denominator of reflectances from 0 to 1, float64."""

    def of(self, bands: Mapping[str, np.ndarray]) -> np.ndarray:
        """The index where all its bands have data.

        Args:
            bands: by common name, arrays of one shape, uint16 reflectance x 10^4, 0 = nodata;
                bands that the index does not need are passed over.

        Returns: that shape, float32; NaN where a band has none or the denominator is 0.

        Raises: RecipeError where a band is missing.
        """
        missing = [name for name in self.bands if name not in bands]
        if missing:
            raise RecipeError(
                f"index {self.name} needs {', '.join(self.bands)} and {', '.join(missing)} is not "
                "there; add the band to the source or leave the index out"
            )
        stored = [bands[name] for name in self.bands]
        above, below = self.parts(*(one.astype(np.float64) / SCALE for one in stored))
        usable = (below != 0) & np.logical_and.reduce([one != 0 for one in stored])
        return np.divide(above, below, out=np.full(below.shape, np.nan), where=usable).astype(
            np.float32
        )


def _normalised(one: np.ndarray, other: np.ndarray) -> Parts:
    return one - other, one + other


def _evi2(nir: np.ndarray, red: np.ndarray) -> Parts:
    return 2.5 * (nir - red), nir + 2.4 * red + 1


def _savi(nir: np.ndarray, red: np.ndarray) -> Parts:
    return 1.5 * (nir - red), nir + red + 0.5


def _bsi(swir: np.ndarray, red: np.ndarray, nir: np.ndarray, blue: np.ndarray) -> Parts:
    return _normalised(swir + red, nir + blue)


def _ratio(name: str, one: str, other: str, source: str) -> Index:
    """An index of the form (one - other) / (one + other)."""
    return Index(
        name=name,
        bands=(one, other),
        formula=f"({one} - {other}) / ({one} + {other})",
        source=source,
        parts=_normalised,
    )


_ALL = (
    _ratio("ndvi", "nir", "red", "Rouse et al. 1974, NASA SP-351"),
    _ratio("ndwi", "green", "nir", "McFeeters 1996, doi 10.1080/01431169608948714"),
    _ratio("mndwi", "green", "swir16", "Xu 2006, doi 10.1080/01431160600589179"),
    _ratio("ndbi", "swir16", "nir", "Zha, Gao and Ni 2003, doi 10.1080/01431160304987"),
    _ratio("nbr", "nir", "swir22", "Key and Benson 2006, RMRS-GTR-164-CD"),
    _ratio("ndre", "nir", "rededge1", "Barnes et al. 2000, 5th Conf. Precision Agriculture"),
    Index(
        name="evi2",
        bands=("nir", "red"),
        formula="2.5 (nir - red) / (nir + 2.4 red + 1)",
        source="Jiang et al. 2008, doi 10.1016/j.rse.2008.06.006",
        parts=_evi2,
    ),
    Index(
        name="savi",
        bands=("nir", "red"),
        formula="1.5 (nir - red) / (nir + red + 0.5)",
        source="Huete 1988, doi 10.1016/0034-4257(88)90106-X",
        parts=_savi,
    ),
    Index(
        name="bsi",
        bands=("swir16", "red", "nir", "blue"),
        formula="((swir16 + red) - (nir + blue)) / ((swir16 + red) + (nir + blue))",
        source="Rikimaru, Roy and Miyatake 2002, Tropical Ecology 43(1)",
        parts=_bsi,
    ),
)
INDICES: Mapping[str, Index] = MappingProxyType({index.name: index for index in _ALL})
"""Every index, by name."""


def index_layers(source: Source) -> list[str]:
    """Indices that a source stores, by name.

    Raises: RecipeError where one is unknown, or needs a band that the source does not give.
    """
    if not isinstance(source, Sentinel2Source):
        return []
    for name in source.indices:
        if name not in INDICES:
            raise RecipeError(f"there is no index {name!r}; known are {', '.join(INDICES)}")
        lacking = [band for band in INDICES[name].bands if band not in source.bands.all]
        if lacking:
            raise RecipeError(
                f"index {name} needs {', '.join(lacking)}, which the source does not give; add "
                "it to the source's bands"
            )
    return list(source.indices)


def sure_index(source: Source, name: str) -> bool:
    """True where every band of an index is required."""
    return set(INDICES[name].bands) <= set(source.bands.required)
