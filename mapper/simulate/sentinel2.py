"""Sentinel-2 L2A as Earth Search serves it, with the offset in all the states it occurs in.

Cases of the radiometric offset (baseline 04.00 adds 1000 to the digital numbers):

    a  baseline 03.01, before 2022-01-25: never added; metadata agree
    b  04.00, added and removed again; the flag says so, raster:bands still says -0.1
    c  04.00, added and still there; metadata agree
    d  04.00, added and still there, but the flag says that it was removed
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapper.simulate.cities import SimulatedCity, WorldOptions
from mapper.simulate.cogs import Layer, write_cog
from mapper.simulate.extent import Extent
from mapper.simulate.granules import Granule, View, granules_of, view_of, zone_extent
from mapper.simulate.ground import Ground
from mapper.simulate.items import item, projection, raster_asset, timestamp
from mapper.simulate.noise import derive, uniform
from mapper.simulate.sky import Sky, Sun
from mapper.simulate.spectra import BANDS, Material

_REFLECTANCE = Layer(nodata=0, resampling="AVERAGE")
_CLASSES = Layer(nodata=0, resampling="MODE")
_CASES = "bacd"
_CLOUDS = {"a": 0.10, "b": 0.004, "c": 0.20, "d": 0.30}
_MORE_CLOUDS = (0.18, 0.05, 0.55, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """What Earth Search says of a band."""

    number: str
    """As in file names: 02, 8A."""
    common: str
    title: str
    resolution: int
    centre: float
    """Wavelength, micrometres."""
    width: float
    """Full width at half maximum, micrometres."""


_BANDS = {
    "coastal": Band(number="01", common="coastal", title="Coastal aerosol (band 1)",
                    resolution=60, centre=0.443, width=0.027),
    "blue": Band(number="02", common="blue", title="Blue (band 2)",
                 resolution=10, centre=0.49, width=0.098),
    "green": Band(number="03", common="green", title="Green (band 3)",
                  resolution=10, centre=0.56, width=0.045),
    "red": Band(number="04", common="red", title="Red (band 4)",
                resolution=10, centre=0.665, width=0.038),
    "rededge1": Band(number="05", common="rededge", title="Red edge 1 (band 5)",
                     resolution=20, centre=0.704, width=0.019),
    "rededge2": Band(number="06", common="rededge", title="Red edge 2 (band 6)",
                     resolution=20, centre=0.74, width=0.018),
    "rededge3": Band(number="07", common="rededge", title="Red edge 3 (band 7)",
                     resolution=20, centre=0.783, width=0.028),
    "nir": Band(number="08", common="nir", title="NIR 1 (band 8)",
                resolution=10, centre=0.842, width=0.145),
    "nir08": Band(number="8A", common="nir08", title="NIR 2 (band 8A)",
                  resolution=20, centre=0.865, width=0.033),
    "nir09": Band(number="09", common="nir09", title="NIR 3 (band 9)",
                  resolution=60, centre=0.945, width=0.026),
    "swir16": Band(number="11", common="swir16", title="SWIR 1 (band 11)",
                   resolution=20, centre=1.61, width=0.143),
    "swir22": Band(number="12", common="swir22", title="SWIR 2 (band 12)",
                   resolution=20, centre=2.19, width=0.242),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One overpass."""

    when: datetime
    platform: str
    """`A` or `B`."""
    orbit: int
    """Absolute orbit number, invented."""
    case: str
    """State of the offset, see above."""
    clouds: float
    """Share of the mosaic under cloud."""
    swath_edge: bool
    """The edge of the swath cuts a corner off."""
    sun: Sun

    @property
    def baseline(self) -> str:
        """Processing baseline."""
        return "03.01" if self.case == "a" else "04.00"

    @property
    def flag(self) -> bool:
        """What `earthsearch:boa_offset_applied` claims."""
        return self.case in "bd"

    @property
    def dn_offset(self) -> int:
        """What is really in the digital numbers."""
        return 1000 if self.case in "cd" else 0

    @property
    def listed_offset(self) -> float:
        """What `raster:bands` claims, in reflectance."""
        return 0 if self.case == "a" else -0.1


def plan_scenes(city: SimulatedCity, options: WorldOptions) -> tuple[Scene, ...]:
    """The year's overpasses in order of time.

    The first is always of case b and nearly cloud-free; then a (in January), c, d, and b
    again. The last one planned, unless it is the only one, lies on the edge of a swath.
    """
    draw = derive(options.seed, f"dates/{city.seed}")
    count = options.scenes
    spread = iter(range(count))
    scenes = []
    for index in range(count):
        case = _CASES[index] if index < 4 else "b"
        if case == "a":
            day = 6 + draw % 15
        else:
            day = 92 + int(205 * (next(spread) + 0.5) / max(count - (count > 1), 1))
        noon = datetime(options.year, 1, 1, tzinfo=UTC) + timedelta(days=day)
        when = noon + timedelta(hours=10.5 - city.lon / 15.0, seconds=draw % 60 + index)
        clouds = _CLOUDS[case] if index < 4 else _MORE_CLOUDS[index % 4]
        scenes.append(
            Scene(
                when=when.replace(microsecond=276000),
                platform="AB"[index % 2],
                orbit=34000 + draw % 500 + 14 * day,
                case=case,
                clouds=clouds if options.cloudy else 0.0,
                swath_edge=index == count - 1 > 0,
                sun=Sun.at(when, city.lat),
            )
        )
    return tuple(sorted(scenes, key=lambda scene: scene.when))


def views_of(ground: Ground, options: WorldOptions) -> tuple[View, ...]:
    """The windows of all zones that Sentinel-2 delivers of a city."""
    city = ground.city
    windows = [zone_extent(city, options.margin_m, zone, whole=False) for zone in city.zones]
    return tuple(view_of(ground.extent, w, granules_of(city, w)) for w in windows)


def write_sentinel2(
    ground: Ground, options: WorldOptions, folder: Path
) -> Iterator[tuple[dict[str, Any], int]]:
    """Write all scenes under `folder`; yields each item and the offset in its pixels."""
    views = views_of(ground, options)
    texture = _texture(ground)
    for scene in plan_scenes(ground.city, options):
        light = _Light.of(ground, scene, texture)
        for view in views:
            names = {g.code: _name(scene, g, ground.city.slug) for g in view.granules}
            valid = light.valid(view)
            scl = light.classes(view, valid)
            for granule in view.granules:
                target = folder / names[granule.code] / "SCL.tif"
                _crop(target, scl, view, granule, _CLASSES)
            for key in options.bands:
                numbers = light.numbers(view, key, valid)
                for granule in view.granules:
                    target = folder / names[granule.code] / f"B{_BANDS[key].number}.tif"
                    _crop(target, numbers, view, granule, _REFLECTANCE)
            for granule in view.granules:
                part = scl[view.extent.at(20).slices(granule.extent.at(20))]
                found = _item(scene, granule, names[granule.code], options.bands, part)
                yield found, scene.dn_offset


def _texture(ground: Ground) -> NDArray[np.float32]:
    """Brightness of each 10 m pixel around 1, the same on all dates."""
    x, y = ground.local()
    i, j = np.floor(x / 10).astype(np.int64), np.floor(y / 10).astype(np.int64)
    i, j = np.broadcast_arrays(i, j)
    grain = uniform(i, j, derive(ground.world.seed, "grain"))
    return np.float32(0.95) + np.float32(0.10) * grain


def _crop(
    path: Path, mosaic: NDArray[np.generic], view: View, granule: Granule, layer: Layer
) -> None:
    """Write a granule's part of a zone's window; the resolution follows from the shape."""
    resolution = view.extent.resolution * view.extent.width // mosaic.shape[1]
    window = granule.extent.at(resolution)
    write_cog(path, mosaic[view.extent.at(resolution).slices(window)], window, layer)


def _block_mean(array: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    if factor == 1:
        return array
    rows, columns = array.shape[0] // factor, array.shape[1] // factor
    return array.reshape(rows, factor, columns, factor).mean(axis=(1, 3), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Light:
    """The mosaic as one overpass sees it."""

    ground: Ground
    scene: Scene
    sky: Sky
    spectra: NDArray[np.float32]
    """Reflectance by (material, band)."""
    texture: NDArray[np.float32]
    inside: NDArray[np.float32]
    """1 inside the swath, 0 outside, (y, x)."""

    @classmethod
    def of(cls, ground: Ground, scene: Scene, texture: NDArray[np.float32]) -> "_Light":
        """Season, sky and swath of an overpass."""
        x, y = ground.local()
        seed = derive(ground.world.seed, f"sky/{scene.when.date()}")
        left, _, right, _ = ground.extent.bounds
        reach = 0.22 * (right - left)
        edge = x + 0.25 * y < reach
        if not scene.swath_edge:
            edge = np.ones_like(edge)
        return cls(
            ground=ground,
            scene=scene,
            sky=Sky.over(x, y, scene.clouds, scene.sun, seed),
            spectra=ground.spectra(scene.when),
            texture=texture,
            inside=edge.astype(np.float32),
        )

    def valid(self, view: View) -> NDArray[np.float32]:
        """1 where a 10 m pixel of the view lies wholly in the swath, else 0."""
        seen = view.sample(self.inside, self.ground.extent)
        return (seen > 0.999).astype(np.float32)

    def _bare(self, key: str) -> NDArray[np.float32]:
        """Reflectance of the ground without any cloud, on the mosaic."""
        return self.ground.mix(self.spectra[:, BANDS.index(key)]) * self.texture

    def reflectance(self, key: str) -> NDArray[np.float32]:
        """Reflectance of a band on the 10 m mosaic, clouds and shadows included."""
        dark = 1.0 - 0.6 * self.sky.shadow
        bright = 0.42 if key.startswith("swir") else 0.62
        cloud = self.sky.cloud
        surface = self._bare(key) * dark * (1.0 - cloud) + bright * self.texture * cloud
        result: NDArray[np.float32] = surface.astype(np.float32)
        return result

    def numbers(self, view: View, key: str, valid: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Digital numbers of a band at its own resolution; 0 is nodata."""
        factor = _BANDS[key].resolution // 10
        seen = _block_mean(view.sample(self.reflectance(key), self.ground.extent), factor)
        numbers = np.clip(np.rint(seen * 10_000), 1, 20_000) + self.scene.dn_offset
        numbers[_block_mean(valid, factor) < 1.0] = 0
        return numbers.astype(np.uint16)

    def classes(self, view: View, valid: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Scene classification at 20 m, with the codes of Sen2Cor."""
        red, nir = self._bare("red"), self._bare("nir")
        water = self.ground.shares[Material.WATER] / np.float32(100)
        fields = (red, nir, water, self.sky.cloud, self.sky.shadow)
        seen = [_block_mean(view.sample(f, self.ground.extent), 2) for f in fields]
        red, nir, water, cloud, shadow = seen
        greenness = (nir - red) / (nir + red)
        scl = np.where(greenness > 0.4, 4, 5)
        scl[(greenness > 0.32) & (greenness <= 0.4)] = 7
        scl[water > 0.5] = 6
        scl[shadow > 0.35] = 3
        scl[cloud > 0.06] = 10
        scl[cloud > 0.30] = 8
        scl[cloud > 0.65] = 9
        scl[_block_mean(valid, 2) < 1.0] = 0
        return scl.astype(np.uint8)


def _name(scene: Scene, granule: Granule, city: str) -> str:
    day = scene.when.strftime("%Y%m%d")
    return f"S2{scene.platform}_{granule.code}_{day}_0_L2A_sim-{city}"


def _band_assets(scene: Scene, extent: Extent, bands: tuple[str, ...]) -> dict[str, Any]:
    assets = {}
    for key in bands:
        band = _BANDS[key]
        assets[key] = raster_asset(
            f"B{band.number}.tif",
            f"{band.title} - {band.resolution}m",
            eo__bands=[
                {
                    "name": key,
                    "common_name": band.common,
                    "description": band.title,
                    "center_wavelength": band.centre,
                    "full_width_half_max": band.width,
                }
            ],
            gsd=band.resolution,
            **projection(extent.at(band.resolution)),
            raster__bands=[
                {
                    "nodata": 0,
                    "data_type": "uint16",
                    "bits_per_sample": 15,
                    "spatial_resolution": band.resolution,
                    "scale": 0.0001,
                    "offset": scene.listed_offset,
                }
            ],
            roles=["data", "reflectance"],
        )
    assets["scl"] = raster_asset(
        "SCL.tif",
        "Scene classification map (SCL)",
        **projection(extent.at(20)),
        raster__bands=[{"nodata": 0, "data_type": "uint8", "spatial_resolution": 20}],
        roles=["data", "reflectance"],
    )
    return assets


def _shares(scl: NDArray[np.uint8]) -> dict[str, float]:
    """Cloud cover and the percentages that Sentinel-2 metadata give, from the real mask."""
    counts = np.bincount(scl.ravel(), minlength=12)
    total, seen = max(scl.size, 1), max(int(counts[1:].sum()), 1)
    percent = [round(100.0 * int(count) / seen, 6) for count in counts]
    return {
        "eo:cloud_cover": round(percent[8] + percent[9] + percent[10], 6),
        "s2:nodata_pixel_percentage": round(100.0 * int(counts[0]) / total, 6),
        "s2:dark_features_percentage": percent[2],
        "s2:cloud_shadow_percentage": percent[3],
        "s2:vegetation_percentage": percent[4],
        "s2:not_vegetated_percentage": percent[5],
        "s2:water_percentage": percent[6],
        "s2:unclassified_percentage": percent[7],
        "s2:medium_proba_clouds_percentage": percent[8],
        "s2:high_proba_clouds_percentage": percent[9],
        "s2:thin_cirrus_percentage": percent[10],
        "s2:snow_ice_percentage": percent[11],
    }


def _item(
    scene: Scene, granule: Granule, name: str, bands: tuple[str, ...], scl: NDArray[np.uint8]
) -> dict[str, Any]:
    stamp = scene.when.strftime("%Y%m%dT%H%M%S")
    code, baseline = granule.code, scene.baseline
    number = f"N{baseline.replace('.', '')}"
    sensing = f"S2{scene.platform}_MSIL2A_{stamp}_{number}_R{scene.orbit % 143 + 1:03d}"
    properties: dict[str, Any] = {
        "datetime": timestamp(scene.when),
        "created": timestamp(scene.when + timedelta(hours=8)),
        "updated": timestamp(scene.when + timedelta(hours=8)),
        "platform": f"sentinel-2{scene.platform.lower()}",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "proj:epsg": granule.extent.epsg,
        "proj:code": f"EPSG:{granule.extent.epsg}",
        "mgrs:utm_zone": int(code[:-3]),
        "mgrs:latitude_band": code[-3],
        "mgrs:grid_square": code[-2:],
        "grid:code": f"MGRS-{code}",
        "view:sun_azimuth": round(scene.sun.azimuth, 6),
        "view:sun_elevation": round(scene.sun.elevation, 6),
        **_shares(scl),
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": baseline,
        "s2:product_uri": f"{sensing}_T{code}_{stamp}_SIMULATED.SAFE",
        "s2:datatake_id": f"GS2{scene.platform}_{stamp}_{scene.orbit:06d}_N{baseline}",
        "s2:datatake_type": "INS-NOBS",
        "s2:reflectance_conversion_factor": round(_sun_distance(scene.when), 6),
        "s2:sequence": "0",
        "earthsearch:boa_offset_applied": scene.flag,
        "processing:software": {"mapper.simulate": "1"},
    }
    return item(
        name=name,
        collection="sentinel-2-l2a",
        ring=granule.extent.outline(),
        properties=properties,
        assets=_band_assets(scene, granule.extent, bands),
        extensions=("processing", "grid", "raster", "view", "projection", "mgrs", "eo"),
    )


def _sun_distance(when: datetime) -> float:
    """Reflectance conversion factor: the inverse square of the sun's distance, mean 1."""
    return 1.0 + 0.033 * math.cos(2.0 * math.pi * when.timetuple().tm_yday / 365.0)
