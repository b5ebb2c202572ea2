"""Bad input and bad luck: a clear error, a recovery or the right result, never a silent hole."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from shapely import box, to_geojson

from mapper.errors import ModelError, PartlyDoneError, RecipeError, StoreError
from mapper.recipe import data_directory
from mapper.simulate.serve import serve_api, serve_files
from tests.pipelines.conftest import ISLAND_CITY, checksums, differing, read_map
from tests.pipelines.fixed_models import write_model, write_recipe

RASTERS = (".tif", ".csv")


def mapper_exit(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mapper", *arguments], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def write_area(path: Path, bounds: tuple[float, float, float, float], name: str) -> Path:
    feature = {
        "type": "Feature",
        "properties": {"name": name},
        "geometry": json.loads(to_geojson(box(*bounds))),
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


@pytest.fixture(scope="module")
def plainville(world, in_process, tmp_path_factory):
    """The undisturbed product that recoveries have to equal."""
    from mapper.run.run import RunOptions, run

    report = run(
        RunOptions(
            aoi=world / "cities.geojson",
            year=2022,
            catalog=str(world / "catalog.json"),
            out=tmp_path_factory.mktemp("plainville"),
            cluster=in_process,
            tile_size=512,
            cities=("Plainville",),
        )
    )
    return read_map(report, "plainville")


class TestExitCodes:
    def test_unknown_key_of_a_recipe_is_3(self, world, tmp_path):
        text = (data_directory("pipelines") / "spectral-10m.yaml").read_text()
        recipe = tmp_path / "r.yaml"
        recipe.write_text(text + "colour: blue\n")
        aoi = str(world / "cities.geojson")
        code, said = mapper_exit("run", "--aoi", aoi, "--year", "2022", "--recipe", str(recipe))
        assert code == 3
        assert "colour: unknown key" in said

    def test_unknown_city_is_2(self, world):
        aoi = str(world / "cities.geojson")
        code, said = mapper_exit("run", "--aoi", aoi, "--year", "2022", "--city", "Plainvile")
        assert code == 2
        assert "did you mean Plainville" in said

    def test_missing_option_is_2(self):
        assert mapper_exit("run", "--year", "2022")[0] == 2

    def test_missing_aoi_is_3(self, tmp_path):
        code, said = mapper_exit("run", "--aoi", str(tmp_path / "no.geojson"), "--year", "2022")
        assert code == 3
        assert "does not exist" in said

    def test_nothing_found_is_4_and_says_which_filter(self, world, tmp_path):
        code, said = mapper_exit(
            "plan",
            "--aoi",
            str(world / "cities.geojson"),
            "--year",
            "1999",
            "--catalog",
            str(world / "catalog.json"),
            "--out",
            str(tmp_path),
        )
        assert code == 4
        assert "the period 1999-01-01" in said

    def test_a_dead_catalog_is_1(self, world, tmp_path):
        code, said = mapper_exit(
            "plan",
            "--aoi",
            str(world / "cities.geojson"),
            "--year",
            "2022",
            "--catalog",
            "http://127.0.0.1:9/stac",
            "--out",
            str(tmp_path),
        )
        assert code == 1
        assert "http://127.0.0.1:9/stac" in said


class TestModelsAndRecipes:
    def test_a_band_that_no_source_gives_is_refused(self, map_world, tmp_path):
        model = write_model(tmp_path / "m", "local", {"size": 128, "mode": "core"})
        recipe = write_recipe(tmp_path / "two.yaml", model)
        recipe.write_text(recipe.read_text().replace("  elevation: {kind: elevation}\n", ""))
        with pytest.raises(RecipeError, match="elevation:elevation, which no source"):
            map_world(recipe=str(recipe))

    def test_a_band_of_an_optional_source_cannot_be_needed(self, map_world, tmp_path):
        model = write_model(tmp_path / "m", "local", {"size": 128, "mode": "core"})
        recipe = write_recipe(tmp_path / "two.yaml", model)
        text = recipe.read_text().replace("{kind: elevation}", "{kind: elevation, optional: true}")
        recipe.write_text(text)
        with pytest.raises(RecipeError, match="marks as optional"):
            map_world(recipe=str(recipe))

    def test_a_cut_off_graph_is_refused_before_any_search(self, map_world, tmp_path):
        model = write_model(tmp_path / "m", "local", {"size": 128, "mode": "core"})
        graph = model / "model.onnx"
        graph.write_bytes(graph.read_bytes()[:-200])
        recipe = write_recipe(tmp_path / "cut.yaml", model)
        with pytest.raises(ModelError, match="cut off"):
            map_world(recipe=str(recipe), catalog="http://127.0.0.1:9/never-asked")


@pytest.fixture
def broken_world(world, tmp_path):
    """The world with one Sentinel-2 band of Plainville cut off in the middle."""
    folder = tmp_path / "broken"
    shutil.copytree(world, folder)
    path = next(folder.glob("sentinel-2-l2a/plainville/*/*.tif"))
    content = path.read_bytes()
    return folder, path, content


class TestBrokenScenes:
    def test_a_cut_off_cog_fails_its_city_by_name_and_heals(
        self, map_world, broken_world, plainville
    ):
        folder, path, content = broken_world
        path.write_bytes(content[: len(content) // 2])
        report = map_world(catalog=str(folder / "catalog.json"))
        states = {r.slug: r for r in report.results}
        assert states["cornerton"].state == "published"
        assert states["plainville"].state == "failed"
        assert path.name in states["plainville"].reason
        assert not list(report.out.glob("cities/plainville/*/v1/product"))
        with pytest.raises(PartlyDoneError):
            report.check()
        path.write_bytes(content)
        healed = map_world(catalog=str(folder / "catalog.json"))
        assert checksums(read_map(healed, "plainville")["folder"], RASTERS) == checksums(
            plainville["folder"], RASTERS
        )

    def test_holes_are_published_on_demand_alone_and_marked(self, map_world, broken_world):
        folder, path, content = broken_world
        for scene in folder.glob("sentinel-2-l2a/plainville/*/*.tif"):
            scene.write_bytes(content[: len(content) // 2])
        options = {"catalog": str(folder / "catalog.json"), "cities": ("Plainville",)}
        refused = map_world(**options)
        assert refused.results[0].state == "failed"
        assert not list(refused.out.glob("cities/plainville/*/v1/product"))
        report = map_world(**options, allow_missing=True)
        (result,) = report.results
        # an empty map is made, but it does not become the latest by itself
        assert result.state == "candidate"
        assert result.reason.startswith("coverage: 0.0%")
        folder = report.out / result.product
        with rasterio.open(folder / "classes.tif") as dataset:
            assert (dataset.read(1) == 255).all()
        with rasterio.open(folder / "observations.tif") as dataset:
            status = dataset.read(dataset.descriptions.index("sentinel2_status") + 1)
        assert set(np.unique(status)) <= {1, 4}
        item = json.loads((folder / "item.json").read_text())
        assert any(path.parent.name in w for w in item["properties"]["mapper:warnings"])
        assert item["properties"]["mapper:holes"] == {"sentinel2": int((status == 4).sum())}

    def test_a_budget_lets_scenes_go_but_no_hole(self, map_world, broken_world, tmp_path):
        folder, path, content = broken_world
        text = (data_directory("pipelines") / "spectral-10m.yaml").read_text()
        recipe = tmp_path / "budget.yaml"
        recipe.write_text(
            text.replace("kind: sentinel-2\n", "kind: sentinel-2\n    failure_budget: 0.5\n")
        )
        path.write_bytes(content[: len(content) // 2])
        options = {"catalog": str(folder / "catalog.json"), "cities": ("Plainville",)}
        found = read_map(map_world(**options, recipe=str(recipe)), "plainville")
        item = json.loads((found["folder"] / "item.json").read_text())
        assert len(item["properties"]["mapper:warnings"]) == 1
        assert item["properties"]["mapper:holes"] == {}


class TestNetwork:
    def test_a_server_that_answers_500_twice_gives_the_same_map(self, map_world, world, plainville):
        with serve_files(world, fail_first=2) as address:
            report = map_world(catalog=f"{address}/catalog.json", cities=("Plainville",))
        found = read_map(report, "plainville")
        item = json.loads((found["folder"] / "item.json").read_text())
        sources = [link["href"] for link in item["links"] if link["rel"] == "derived_from"]
        assert sources
        assert all(href.startswith(address) for href in sources)
        assert checksums(found["folder"], RASTERS) == checksums(plainville["folder"], RASTERS)

    def test_a_stac_api_gives_the_same_map(self, map_world, world, plainville):
        with serve_files(world) as files, serve_api(world / "catalog.json", base=files) as api:
            report = map_world(catalog=api, cities=("Plainville",))
        found = read_map(report, "plainville")
        assert checksums(found["folder"], RASTERS) == checksums(plainville["folder"], RASTERS)


class TestFullDisk:
    @staticmethod
    def reason_of_failure(map_world, out: Path) -> str:
        """What is said where a shard does not fit, or the ledger itself."""
        try:
            return map_world(out=out, cities=("Plainville",)).results[0].reason
        except StoreError as error:
            return str(error)

    def test_a_full_disk_stops_with_an_error_and_resumes(self, map_world, plainville, tmp_path):
        out = tmp_path / "small"
        out.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(out)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("no permission to mount a small file system")
        try:
            said = self.reason_of_failure(map_world, out)
            assert "No space left" in said
            assert not list(out.glob("cities/*/*/v1/product"))
            grow = ["mount", "-o", "remount,size=500m", str(out)]
            subprocess.run(grow, check=True)
            report = map_world(out=out, cities=("Plainville",))
            found = read_map(report, "plainville")
            assert checksums(found["folder"], RASTERS) == checksums(plainville["folder"], RASTERS)
        finally:
            subprocess.run(["umount", str(out)], check=False)


class TestExtremeAreas:
    def test_an_area_of_one_pixel_is_mapped(self, map_world, tmp_path):
        lon, lat = ISLAND_CITY.lon, ISLAND_CITY.lat
        aoi = write_area(tmp_path / "a.geojson", (lon, lat, lon + 5e-5, lat + 5e-5), "Dot")
        found = read_map(map_world(aoi=aoi), "dot")
        assert 1 <= (found["classes"] != 255).sum() <= 4
        statistics = json.loads((found["folder"] / "statistics.json").read_text())
        assert statistics["mapped_km2"] == pytest.approx(
            (found["classes"] != 255).sum() * 1e-4, rel=0.01
        )

    def test_an_area_of_2000_km2_keeps_its_extent_and_says_what_was_never_seen(
        self, map_world, tmp_path, plainville
    ):
        lon, lat = ISLAND_CITY.lon, ISLAND_CITY.lat
        aoi = write_area(
            tmp_path / "a.geojson", (lon - 0.25, lat - 0.2, lon + 0.25, lat + 0.2), "Wide"
        )
        found = read_map(map_world(aoi=aoi, tile_size=2048), "wide")
        statistics = json.loads((found["folder"] / "statistics.json").read_text())
        assert statistics["area_km2"] > 2000
        mapped = found["classes"] != 255
        assert mapped.sum() * 1e-4 == pytest.approx(statistics["mapped_km2"], rel=0.01)
        with rasterio.open(found["folder"] / "observations.tif") as dataset:
            status = dataset.read(dataset.descriptions.index("sentinel2_status") + 1)
        assert set(np.unique(status[~mapped])) <= {1, 2, 3}
        assert (status == 2).mean() > 0.9
        # the town in the middle is the town as mapped alone
        assert differing(found, plainville) == 0


def test_a_tile_size_off_the_lattice_is_usage():
    code, said = mapper_exit(
        "run",
        "--aoi",
        str(data_directory("pipelines") / "cities.geojson"),
        "--year",
        "2022",
        "--city",
        "Paris",
        "--tile-size",
        "500",
    )
    assert code == 2
    assert "multiple of 256" in said
