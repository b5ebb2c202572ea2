"""The ground of a simulated city: a pure function of a seed and metres in its local plane.

`World.render` paints any rectangle at any step. What it paints at a point depends on nothing
but the point, so rectangles fit together and may be made in any order.

A warped lattice of main roads encloses districts; each district has its own street grid; each
block of a street grid has a kind (see `blocks`); a river and a lake lie over all of it.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mapper.simulate.blocks import Plots, paint
from mapper.simulate.cities import SimulatedCity
from mapper.simulate.noise import FloatArray, derive, uniform, upsample, value_noise
from mapper.simulate.spectra import Material
from mapper.simulate.style import DEFAULT, Style, Town

_TILE = 360
"""Samples per side of the tiles that `render` works in: small enough for the cache."""
_BLOCKS = 48
"""Side of a district's table of blocks; index 24 holds the district's centre."""
_RURAL = 0.12
"""Urbanity below which there are fields instead of blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Districts:
    """Street grids of the districts around a window, as flat tables indexed by district."""

    first: tuple[int, int]
    """Lattice indices (x, y) of the table's first district."""
    columns: int
    """Districts per row of the table."""
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]
    shift_u: NDArray[np.float32]
    shift_v: NDArray[np.float32]
    block_u: NDArray[np.float32]
    """Street to street along u, metres, the street included."""
    block_v: NDArray[np.float32]
    street: NDArray[np.float32]
    """Width of a street, metres."""
    arterial: NDArray[np.float32]
    """Half the width of the main road at the district's edge, metres."""
    kinds: NDArray[np.uint8]
    """Kind of block by (district, v, u), flattened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The city and the land around it. Coordinates are eastings and northings in metres."""

    seed: int
    centre: tuple[int, int]
    """Easting and northing of the city's centre."""
    size: float
    """Side of the built-up area, metres."""
    town: Town = DEFAULT.town

    @classmethod
    def of(cls, city: SimulatedCity, seed: int, style: Style = DEFAULT) -> "World":
        """The world of a city; `seed` is mixed with the city's own.

        Rivers, roads and blocks are the same in every style; what stands on the blocks is not.
        """
        mixed = derive(seed, f"world/{city.seed}")
        return cls(seed=mixed, centre=city.centre, size=float(city.size_m), town=style.town)

    @property
    def district_size(self) -> float:
        """Mean distance of main roads, metres."""
        return float(np.clip(round(self.size / 6.0), 360, 700))

    def _seed(self, label: str) -> int:
        return derive(self.seed, label)

    def _choice(self, label: str) -> float:
        return self._seed(label) / 2.0**32

    def urbanity(self, x: FloatArray, y: FloatArray) -> NDArray[np.float64]:
        """About 1 downtown, 0 where the town ends, negative in the country.

        x, y: metres from the centre. The town's outline is bent by noise.
        """
        radius = np.sqrt(x * x + y * y) / (0.56 * self.size)
        bend = value_noise(x, y, 0.35 * self.size, self._seed("outline")) - 0.5
        return 1.0 - radius + 0.5 * bend

    def river(self, x: FloatArray, y: FloatArray) -> NDArray[np.float64]:
        """Metres from the river's bank, negative in the water; x, y from the centre.

        It meanders from north to south and passes the centre at a sixth of the town's size.
        """
        slope = 0.5 * (self._choice("river slope") - 0.5)
        offset = self.size / 6.0 * (1.0 if self._choice("river side") > 0.5 else -1.0)
        zero = np.zeros_like(y)
        bend = value_noise(y, zero, 1100.0, self._seed("meander")) - 0.5
        bend = bend + 0.3 * (value_noise(y, zero, 420.0, self._seed("bend")) - 0.5)
        half = 36.0 + 16.0 * value_noise(y, zero, 700.0, self._seed("river width"))
        return np.abs(x - offset - slope * y - 520.0 * bend) * 0.87 - half

    def lake(self, x: FloatArray, y: FloatArray) -> NDArray[np.float64]:
        """Metres from the lake's shore, negative in the water; x, y from the centre."""
        angle = 2.0 * np.pi * self._choice("lake")
        reach = 0.36 * self.size
        radius = max(110.0, 0.075 * self.size)
        bend = value_noise(x, y, 1.3 * radius, self._seed("shore")) - 0.5
        dx, dy = x - reach * np.cos(angle), y - reach * np.sin(angle)
        return np.sqrt(dx * dx + dy * dy) - radius * (1.0 + 0.9 * bend)

    def _warped(self, axis: int, x: FloatArray, y: FloatArray) -> NDArray[np.float64]:
        """Bend x or y so that main roads, its multiples of the district size, are curves."""
        size = self.district_size
        noise = value_noise(x, y, 1.6 * size, self._seed(f"warp {axis}"))
        return (y if axis else x) + 0.44 * size * (noise - 0.5)

    def districts(self, first: tuple[int, int], last: tuple[int, int]) -> Districts:
        """Tables of the districts from `first` to `last` (lattice indices, inclusive)."""
        columns, rows = last[0] - first[0] + 1, last[1] - first[1] + 1
        i = np.tile(np.arange(first[0], last[0] + 1), rows)
        j = np.repeat(np.arange(first[1], last[1] + 1), columns)
        x, y = (i + 0.5) * self.district_size, (j + 0.5) * self.district_size
        urban = self.urbanity(x, y)
        rural = urban < _RURAL - 0.12
        draw = [uniform(i, j, self._seed(f"district {n}")) for n in range(4)]
        angle = (draw[0] - 0.5) * np.where(rural, 0.7, 1.3)
        cos, sin = np.cos(angle), np.sin(angle)
        block_u = np.where(rural, 150 + 130 * draw[1], 74 + 62 * draw[1])
        block_v = np.where(rural, 110 + 80 * draw[2], 58 + 34 * draw[2])
        block = np.arange(_BLOCKS)
        u = (block[None, None, :] - _BLOCKS // 2 + 0.5) * block_u[:, None, None]
        v = (block[None, :, None] - _BLOCKS // 2 + 0.5) * block_v[:, None, None]
        c, s = cos[:, None, None], sin[:, None, None]
        shape = (i.size, _BLOCKS, _BLOCKS)
        key_u = np.broadcast_to(i[:, None, None] * _BLOCKS + block[None, None, :], shape)
        key_v = np.broadcast_to(j[:, None, None] * _BLOCKS + block[None, :, None], shape)
        draws = uniform(key_u, key_v, self._seed("block kind"))
        urban_here = self.urbanity(
            x[:, None, None] + u * c - v * s, y[:, None, None] + u * s + v * c
        )
        kinds = self._kinds(urban_here, draws, draw[3])
        return Districts(
            first=first,
            columns=columns,
            cos=cos.astype(np.float32),
            sin=sin.astype(np.float32),
            shift_u=(-(x * cos + y * sin)).astype(np.float32),
            shift_v=(x * sin - y * cos).astype(np.float32),
            block_u=block_u.astype(np.float32),
            block_v=block_v.astype(np.float32),
            street=np.where(rural, 4.0, np.where(urban > 0.6, 15.0, 11.0)).astype(np.float32),
            arterial=np.where(rural, 4.5, 9.0).astype(np.float32),
            kinds=kinds.ravel(),
        )

    def _kinds(
        self,
        urban: NDArray[np.float64],
        draw: NDArray[np.float32],
        character: NDArray[np.float32],
    ) -> NDArray[np.uint8]:
        """Kind of each block (district, v, u) from the urbanity at its centre and a draw."""
        zone = np.digitize(urban, (_RURAL, 0.42, 0.68))
        zone[(zone == 2) & (character[:, None, None] < 0.2)] = 4
        kinds = np.empty(urban.shape, np.uint8)
        for index, mix in enumerate(self.town.mix):
            edges = np.cumsum([share for _, share in mix])
            choice = np.minimum(np.searchsorted(edges, draw, side="right"), len(mix) - 1)
            names = np.array([kind for kind, _ in mix], np.uint8)
            kinds = np.where(zone == index, names[choice], kinds)
        return kinds

    def render(
        self, left: float, top: float, width: int, height: int, step: float = 1
    ) -> NDArray[np.uint8]:
        """Material (uint8 `Material`) at the centres of `step`-metre cells, row 0 in the north.

        left, top: metres, multiples of `step`. width, height: cells. Shape (height, width).
        """
        # counted in cells, a cell has the same centre in every rectangle to the last bit
        first, last = round(left / step), round(top / step)
        out = np.empty((height, width), np.uint8)
        for row in range(0, height, _TILE):
            for column in range(0, width, _TILE):
                rows, columns = min(_TILE, height - row), min(_TILE, width - column)
                x = (first + column + np.arange(columns) + 0.5) * step - self.centre[0]
                y = (last - row - np.arange(rows) - 0.5) * step - self.centre[1]
                out[row : row + rows, column : column + columns] = self._tile(x, y)
        return out

    def _tile(self, x: FloatArray, y: FloatArray) -> NDArray[np.uint8]:
        """Materials for columns `x` and rows `y`, metres from the centre."""
        size = np.float32(self.district_size)
        warped = [upsample(partial(self._warped, axis), x, y) for axis in (0, 1)]
        lines = [np.floor(w / size) for w in warped]
        index = [line.astype(np.int64) for line in lines]
        first = int(index[0].min()), int(index[1].min())
        table = self.districts(first, (int(index[0].max()), int(index[1].max())))
        district = (index[1] - first[1]) * table.columns + (index[0] - first[0])
        inside = [w - n * size for w, n in zip(warped, lines, strict=True)]
        edge = [np.minimum(w, size - w) for w in inside]

        column, row = x.astype(np.float32)[None, :], y.astype(np.float32)[:, None]
        c, s = table.cos[district], table.sin[district]
        u = column * c + row * s + table.shift_u[district]
        v = row * c - column * s + table.shift_v[district]
        block_u, block_v = table.block_u[district], table.block_v[district]
        iu, iv = np.floor(u / block_u), np.floor(v / block_v)
        bu, bv = iu.astype(np.int64), iv.astype(np.int64)
        half = _BLOCKS // 2
        cell = (district * _BLOCKS + (bv + half)) * _BLOCKS + (bu + half)
        street = table.street[district]
        plots = Plots(
            kind=table.kinds[cell],
            a=u - iu * block_u - street,
            b=v - iv * block_v - street,
            long=block_u - street,
            deep=block_v - street,
            street=street,
            key=bu + 64 * bv + 4096 * (index[0] + 64 * index[1]),
            x=np.ascontiguousarray(np.broadcast_to(column, u.shape)),
            y=np.ascontiguousarray(np.broadcast_to(row, u.shape)),
            seed=self._seed("plots"),
            leafy=self.town.leafy,
        )
        material = paint(plots)
        self._pave(material, edge, table.arterial[district])
        self._flood(material, edge[1] - table.arterial[district], x, y)
        return material

    def _pave(
        self,
        material: NDArray[np.uint8],
        edge: list[NDArray[np.float32]],
        half: NDArray[np.float32],
    ) -> None:
        """Draw main roads along the districts' edges; a verge with grass where they are wide."""
        distance = np.minimum(edge[0], edge[1]) - half
        material[distance < 5.0] = Material.GRASS
        material[distance < 2.5] = Material.PAVEMENT
        material[distance < 0.0] = Material.ASPHALT
        material[(distance < 1.2 - half) & (half > 8.0)] = Material.GRASS

    def _flood(
        self,
        material: NDArray[np.uint8],
        bridge: NDArray[np.float32],
        x: FloatArray,
        y: FloatArray,
    ) -> None:
        """Draw river and lake with their banks; east-west main roads cross on bridges."""
        lake = upsample(self.lake, x, y)
        river = upsample(self.river, x, y)
        if min(lake.min(), river.min()) > 60.0:
            return
        shore = np.minimum(lake, river)
        road = bridge < 0.0
        material[(lake < 45.0) & ~road] = Material.GRASS
        material[(river < 22.0) & ~road & (lake >= 45.0)] = Material.GRASS
        grove = upsample(
            lambda a, b: value_noise(a, b, 40.0, self._seed("grove")).astype(np.float64), x, y
        )
        material[(shore < 38.0) & (shore > 5.0) & (grove > 0.55) & ~road] = Material.TREE
        material[(lake < 6.0) & ~road] = Material.GRAVEL
        water = shore < 0.0
        bridges = road & (lake > 0.0)
        material[water & ~bridges] = Material.WATER
        material[water & bridges] = Material.ASPHALT
