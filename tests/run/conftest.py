"""Two small mapped cities, labelled samples of one of them, and weights taught by these."""

import shutil
from contextlib import contextmanager

import pytest
import yaml

from mapper.recipe import load_recipe
from mapper.recipe.load import data_directory
from mapper.recipe.settings import changed, with_samples
from mapper.run.adapt.request import AdaptRequest
from mapper.run.run import RunOptions, run
from mapper.run.samples.samples import SampleOptions, make_samples
from mapper.simulate import SimulatedCity, WorldOptions, write_archive
from mapper.simulate.spectra import TRUTH_CLASSES
from tests.training.lessons import train_section

CITIES = (
    SimulatedCity(
        name="Zweistadt", country="Nowhere", iso="XXA", lon=6.0004, lat=45.6412, size_m=640,
        seed=7, orbits=(),
    ),
    SimulatedCity(
        name="Plainville", country="Nowhere", iso="XXA", lon=-30.2, lat=-35.1, size_m=800,
        seed=8, orbits=(),
    ),
)  # fmt: skip
BANDS = ["sentinel2:red", "sentinel2:green", "sentinel2:nir"]


@contextmanager
def single_thread():
    """PyTorch on one thread, and left as it was found."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def one_thread():
    with single_thread():
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Two small cities, seen twice."""
    folder = tmp_path_factory.mktemp("adapt-world")
    bands = ("green", "red", "nir")
    options = WorldOptions(scenes=2, s1_dates=1, margin_m=400, bands=bands, highres=False)
    write_archive(folder, CITIES, options)
    return folder


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory):
    """The spectral recipe, with a tiny network to train."""
    content = yaml.safe_load((data_directory("pipelines") / "spectral-10m.yaml").read_text())
    train = train_section(
        options={"width": 4, "depth": 2},
        bands=BANDS,
        scaling=[{"type": "scale", "value": 1.0}],
        classes=[
            {"value": c.value, "name": c.name, "color": c.color} for c in TRUTH_CLASSES.classes
        ],
        data={"layout": "samples"},
        epochs=2,
        adapt={"method": "adabn", "epochs": 1, "patches": 4, "adabn": {"batches": 2}},
        window={"size": 64, "mode": "core"},
    )
    # nothing is left open, so nothing is measured
    content |= {
        "name": "tiny-10m",
        "train": train.model_dump(mode="json"),
        "predict": {"form": "model", "batch": 1, "size": 64},
    }
    path = tmp_path_factory.mktemp("adapt-recipe") / "tiny-10m.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@contextmanager
def local_cluster():
    """Address of a cluster whose worker is a thread of this process."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as found:
        yield found.scheduler_address


@pytest.fixture(scope="module")
def cluster():
    with local_cluster() as address:
        yield address


@pytest.fixture(scope="session")
def mapped_once(world, recipe_file, tmp_path_factory):
    """Folder of a run over both, by the spectral model."""
    out = tmp_path_factory.mktemp("adapt-run") / "maps"
    with local_cluster() as cluster:
        options = RunOptions(
            aoi=world / "cities.geojson",
            year=2022,
            catalog=str(world / "catalog.json"),
            out=out,
            recipe=str(recipe_file),
            cluster=cluster,
            tile_size=256,
        )
        run(options).check()
    return out


@pytest.fixture
def mapped(mapped_once, tmp_path):
    """A copy of it, to add versions to."""
    return shutil.copytree(mapped_once, tmp_path / "maps")


@pytest.fixture(scope="session")
def samples(world, mapped_once, tmp_path_factory):
    """Labelled patches of one of them: the source."""
    out = tmp_path_factory.mktemp("adapt-source") / "set"
    labels = world / "simulated-truth"
    make_samples(
        SampleOptions(
            run=mapped_once, out=out, labels=labels, size=32, per_class=4, cities=("plainville",)
        )
    )
    return out


@pytest.fixture(scope="session")
def weights(recipe_file, samples, tmp_path_factory):
    """Of a training on the source, once for all tests but one."""
    from mapper.training.train import TrainOptions, train_model

    out = tmp_path_factory.mktemp("adapt-weights") / "training"
    recipe = changed(with_samples(load_recipe(str(recipe_file))), ["split.block=60"])
    with single_thread():
        train_model(TrainOptions(recipe=recipe, data=samples, out=out))
    return out


@pytest.fixture
def request_(world, recipe_file, samples, weights, mapped, tmp_path, cluster):
    """Adapt to the run's cities."""
    recipe = changed(with_samples(load_recipe(str(recipe_file))), ["split.block=60"])
    return AdaptRequest(
        recipe=recipe,
        recipe_name=str(recipe_file),
        source=samples,
        target=mapped,
        out=tmp_path / "adapted",
        start=weights,
        catalog=str(world / "catalog.json"),
        cluster=cluster,
    )
