"""How a simulated city looks: what is built there, of what, at which season, by which sensor.

A model learns one style and is asked about another; the truth of both is known.

| | `default` | `dry` | `northern` |
|---|---|---|---|
| built | tiled houses, some parks | close blocks, few parks and trees | slabs amid woods |
| roofs | red clay tiles | pale concrete slabs | blue-green metal sheet, bitumen |
| roads, soil | asphalt, brown soil | bleached concrete, pale soil | grey asphalt, dark peat |
| vegetation | green in summer | evergreen trees, straw from June | leaves in the middle of May |
| photograph | 21 June | 25 August | 22 April |
| its pixels | 1 m RGB and NIR, sharp | 0.6 m RGB and NIR, soft, hazy | 1 m RGB, flat, bluish |
| its shadows | 4 m each way, north-west | 3 m each way, north-east | 7 m, north |

A city of one seed has the same rivers, roads and blocks in every style. Sentinel-2 follows the
surfaces and the season on its own dates, Sentinel-1 what is built; elevation is the same.
All numbers are chosen, as those of `spectra` are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mapper.errors import UsageError
from mapper.simulate.blocks import Kind
from mapper.simulate.spectra import Material, Season, Surfaces

CHANNELS = ("red", "green", "blue", "nir")
"""Of the high-resolution sensor, in the order of its files; the last may not be delivered."""

Mix = tuple[tuple[tuple[Kind, float], ...], ...]
"""Shares of block kinds: country, suburb, inner town, downtown, industrial district."""
FourChannels = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Town:
    """What is built."""

    mix: Mix = (
        (
            (Kind.WINTER_FIELD, 0.24), (Kind.SUMMER_FIELD, 0.22), (Kind.FALLOW_FIELD, 0.10),
            (Kind.MEADOW, 0.14), (Kind.FOREST, 0.24), (Kind.BARE, 0.03), (Kind.FARM, 0.03),
        ),
        (
            (Kind.HOUSES, 0.72), (Kind.PARK, 0.08), (Kind.MEADOW, 0.07), (Kind.HALLS, 0.05),
            (Kind.BARE, 0.04), (Kind.SUMMER_FIELD, 0.04),
        ),
        (
            (Kind.PERIMETER, 0.34), (Kind.HOUSES, 0.38), (Kind.SLABS, 0.12), (Kind.PARK, 0.10),
            (Kind.BARE, 0.03), (Kind.PLAZA, 0.03),
        ),
        (
            (Kind.PERIMETER, 0.66), (Kind.SLABS, 0.10), (Kind.PLAZA, 0.08), (Kind.PARK, 0.12),
            (Kind.HALLS, 0.04),
        ),
        (
            (Kind.HALLS, 0.74), (Kind.BARE, 0.14), (Kind.PLAZA, 0.05), (Kind.MEADOW, 0.07),
        ),
    )  # fmt: skip
    leafy: float = 1.0
    """Factor on the share of places that hold a tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """The camera of the high-resolution photograph, and the light it had.

    A grey value is 255 ((reflectance + haze) gain / 0.55) ** gamma, 8 bit, never 0.
    """

    decimetres: int = 10
    """Pixel size in tenths of a metre; pixels count from the origin of the reference system."""
    near_infrared: bool = True
    gain: FourChannels = (1.0, 1.0, 1.0, 1.0)
    haze: FourChannels = (0.0, 0.0, 0.0, 0.0)
    """Light of the air, as reflectance."""
    gamma: float = 0.6
    blur: float = 0.0
    """Standard deviation of the point spread, pixels."""
    noise: float = 0.0
    """Standard deviation, grey values."""
    shadow: tuple[float, float] = (-4.0, 4.0)
    """Where the edge of a roof falls on the ground: metres east and north of it."""
    shade: float = 0.4
    """Light in a shadow, of that in the sun."""

    @property
    def pixel(self) -> float:
        """Pixel size in metres."""
        return self.decimetres / 10

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that are delivered."""
        return CHANNELS if self.near_infrared else CHANNELS[:3]

    @property
    def title(self) -> str:
        """Pixel size and channels, in words."""
        more = ", near-infrared" if self.near_infrared else ""
        return f"{self.pixel:g} m: red, green, blue{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """One look of the simulated world."""

    name: str
    title: str
    town: Town = field(default_factory=Town)
    surfaces: Surfaces = field(default_factory=Surfaces)
    photographed: tuple[int, int] = (6, 21)
    """Month and day of the photograph north of the equator; half a year later south of it."""
    sensor: Sensor = field(default_factory=Sensor)


DEFAULT = Style(name="default", title="tiled roofs, summer, 1 m RGB and near-infrared")

_DRY = Style(
    name="dry",
    title="concrete roofs, dry summer, hazy 0.6 m RGB and near-infrared",
    town=Town(
        mix=(
            (
                (Kind.WINTER_FIELD, 0.26), (Kind.SUMMER_FIELD, 0.14), (Kind.FALLOW_FIELD, 0.20),
                (Kind.MEADOW, 0.16), (Kind.FOREST, 0.12), (Kind.BARE, 0.08), (Kind.FARM, 0.04),
            ),
            (
                (Kind.HOUSES, 0.52), (Kind.PERIMETER, 0.20), (Kind.PARK, 0.03),
                (Kind.MEADOW, 0.04), (Kind.HALLS, 0.06), (Kind.BARE, 0.10),
                (Kind.SUMMER_FIELD, 0.05),
            ),
            (
                (Kind.PERIMETER, 0.56), (Kind.HOUSES, 0.22), (Kind.SLABS, 0.08),
                (Kind.PARK, 0.04), (Kind.BARE, 0.06), (Kind.PLAZA, 0.04),
            ),
            (
                (Kind.PERIMETER, 0.78), (Kind.SLABS, 0.05), (Kind.PLAZA, 0.09), (Kind.PARK, 0.05),
                (Kind.HALLS, 0.03),
            ),
            (
                (Kind.HALLS, 0.70), (Kind.BARE, 0.20), (Kind.PLAZA, 0.07), (Kind.MEADOW, 0.03),
            ),
        ),
        leafy=0.6,
    ),
    surfaces=Surfaces(
        full={
            Material.WATER:
                (.032, .032, .038, .022, .019, .014, .012, .010, .008, .006, .004, .003),
            Material.TREE:
                (.021, .026, .051, .043, .076, .165, .195, .215, .230, .230, .145, .072),
            Material.CONIFER:
                (.014, .018, .029, .022, .050, .130, .155, .172, .182, .182, .110, .055),
            Material.ROOF_TILE:
                (.215, .250, .285, .305, .312, .320, .325, .330, .335, .335, .360, .330),
            Material.ROOF_DARK:
                (.110, .130, .155, .180, .190, .200, .205, .212, .218, .218, .245, .225),
            Material.ROOF_BRIGHT:
                (.370, .410, .450, .475, .480, .485, .488, .490, .490, .490, .470, .420),
            Material.ASPHALT:
                (.135, .155, .178, .192, .198, .205, .210, .218, .224, .224, .255, .240),
            Material.PAVEMENT:
                (.190, .222, .255, .276, .284, .292, .298, .305, .310, .310, .335, .310),
            Material.SOIL:
                (.100, .140, .215, .315, .335, .352, .366, .380, .394, .394, .460, .405),
            Material.GRAVEL:
                (.125, .170, .255, .360, .376, .390, .400, .410, .420, .420, .470, .425),
            Material.FALLOW:
                (.085, .120, .180, .250, .275, .300, .318, .335, .350, .350, .410, .340),
        },
        dormant={
            Material.TREE:
                (.026, .033, .056, .056, .092, .165, .190, .208, .222, .222, .180, .100),
            Material.GRASS:
                (.062, .084, .138, .158, .200, .245, .265, .290, .310, .310, .370, .260),
            Material.MEADOW:
                (.066, .090, .146, .172, .214, .255, .275, .298, .318, .318, .385, .275),
            Material.WINTER_CROP:
                (.085, .118, .190, .262, .290, .320, .340, .365, .385, .385, .430, .320),
        },
        seasons={
            Material.TREE: Season(start=75.0, end=330.0, floor=0.75),
            Material.GRASS: Season(start=-30.0, end=160.0, floor=0.25),
            Material.MEADOW: Season(start=-20.0, end=150.0, floor=0.1),
            Material.WINTER_CROP: Season(start=20.0, end=150.0, floor=0.05),
        },
    ),
    photographed=(8, 25),
    sensor=Sensor(
        decimetres=6,
        gain=(0.94, 0.92, 0.90, 0.95),
        haze=(0.014, 0.018, 0.026, 0.006),
        gamma=0.7,
        blur=0.7,
        noise=2.0,
        shadow=(3.0, 3.0),
        shade=0.5,
    ),
)  # fmt: skip

_NORTHERN = Style(
    name="northern",
    title="metal roofs, spring before the leaves, flat 1 m RGB",
    town=Town(
        mix=(
            (
                (Kind.WINTER_FIELD, 0.12), (Kind.SUMMER_FIELD, 0.14), (Kind.FALLOW_FIELD, 0.08),
                (Kind.MEADOW, 0.18), (Kind.FOREST, 0.42), (Kind.BARE, 0.03), (Kind.FARM, 0.03),
            ),
            (
                (Kind.HOUSES, 0.58), (Kind.SLABS, 0.08), (Kind.PARK, 0.06), (Kind.FOREST, 0.12),
                (Kind.MEADOW, 0.08), (Kind.HALLS, 0.04), (Kind.BARE, 0.04),
            ),
            (
                (Kind.PERIMETER, 0.18), (Kind.HOUSES, 0.30), (Kind.SLABS, 0.30), (Kind.PARK, 0.14),
                (Kind.BARE, 0.04), (Kind.PLAZA, 0.04),
            ),
            (
                (Kind.PERIMETER, 0.44), (Kind.SLABS, 0.28), (Kind.PLAZA, 0.08), (Kind.PARK, 0.14),
                (Kind.HALLS, 0.06),
            ),
            (
                (Kind.HALLS, 0.70), (Kind.BARE, 0.14), (Kind.PLAZA, 0.06), (Kind.FOREST, 0.10),
            ),
        ),
        leafy=1.2,
    ),
    surfaces=Surfaces(
        full={
            Material.WATER:
                (.016, .014, .015, .012, .010, .008, .007, .006, .005, .004, .003, .002),
            Material.CONIFER:
                (.010, .013, .024, .015, .036, .115, .140, .158, .168, .168, .075, .030),
            Material.ROOF_TILE:
                (.100, .135, .130, .080, .085, .120, .165, .200, .215, .215, .190, .160),
            Material.ROOF_DARK:
                (.042, .047, .050, .054, .056, .058, .060, .063, .066, .066, .080, .078),
            Material.ROOF_BRIGHT:
                (.200, .220, .232, .238, .240, .242, .245, .248, .250, .250, .255, .245),
            Material.ASPHALT:
                (.092, .102, .110, .114, .117, .122, .126, .130, .135, .135, .160, .152),
            Material.PAVEMENT:
                (.150, .168, .184, .194, .200, .208, .214, .222, .228, .228, .255, .235),
            Material.SOIL:
                (.036, .044, .062, .088, .102, .118, .130, .145, .160, .160, .230, .200),
            Material.GRAVEL:
                (.100, .118, .148, .200, .218, .232, .242, .255, .265, .265, .310, .285),
            Material.FALLOW:
                (.044, .056, .084, .112, .135, .158, .175, .196, .215, .215, .285, .220),
        },
        dormant={
            Material.TREE:
                (.032, .040, .056, .074, .096, .122, .140, .160, .178, .178, .210, .145),
            Material.GRASS:
                (.046, .060, .096, .112, .150, .195, .215, .245, .265, .265, .320, .215),
            Material.SUMMER_CROP:
                (.036, .044, .062, .088, .102, .118, .130, .145, .160, .160, .230, .200),
        },
        seasons={
            Material.TREE: Season(start=138.0, end=275.0, floor=0.05),
            Material.GRASS: Season(start=112.0, end=295.0, floor=0.4),
            Material.MEADOW: Season(start=122.0, end=280.0, floor=0.25),
            Material.WINTER_CROP: Season(start=95.0, end=215.0, floor=0.2),
            Material.SUMMER_CROP: Season(start=178.0, end=262.0),
        },
    ),
    photographed=(4, 22),
    sensor=Sensor(
        near_infrared=False,
        gain=(0.92, 0.95, 1.0, 1.0),
        haze=(0.006, 0.012, 0.024, 0.0),
        gamma=0.58,
        blur=0.5,
        noise=3.0,
        shadow=(0.0, 7.0),
    ),
)  # fmt: skip

STYLES: Mapping[str, Style] = {style.name: style for style in (DEFAULT, _DRY, _NORTHERN)}


def find_style(name: str) -> Style:
    """The style of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in STYLES:
        raise UsageError(f"there is no style {name!r}; choose among {', '.join(STYLES)}")
    return STYLES[name]
