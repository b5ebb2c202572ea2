"""One way of running a network over a picture, in a process of its own, measured.

The clock runs from opening the picture to closing the label map. Imports, loading and a first
batch come before it, and what they hold is taken off the peak of memory. Prints one line of JSON.

    python benchmarks/contenders.py monai town.tif labels.tif --network cheap --models DIR
"""

import argparse
import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from networks import CLASSES, load
from rasterio.windows import Window

from mapper.area.grid import PixelBox
from mapper.area.window import WindowPlan

Work = Callable[[], float | None]
"""Does the work; returns seconds where the clock is not to be that of the whole call."""
OUTPUT = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255, "compress": "deflate"}
OUTPUT |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "bigtiff": "if_safer"}


@dataclass(frozen=True, slots=True)
class Job:
    """What to run over what."""

    image: Path
    labels: Path
    network: str
    models: Path
    size: int
    stride: int
    batch: int
    mode: str
    form: str = "onnx"
    """Of mapper's model folder."""
    extra: tuple[str, ...] = ()
    """Further settings of mapper's, as `KEY=VALUE`."""

    @property
    def folder(self) -> Path:
        """Mapper's model folder."""
        return self.models / f"{self.network}-{self.form}"

    @property
    def settings(self) -> tuple[str, ...]:
        """Mapper's predict section."""
        return (f"mode={self.mode}", f"size={self.size}", f"stride={self.stride}", *self.extra)

    @property
    def overlap(self) -> int:
        """Pixels that neighbouring windows share."""
        return self.size - self.stride


@dataclass(frozen=True, slots=True)
class Contender:
    """How to get ready, and which packages are named in the result."""

    prepare: Callable[[Job], Work]
    packages: tuple[str, ...]


def monai(job: Job) -> Work:
    """MONAI: the whole picture as one tensor, gaussian weights."""
    import torch
    from monai.inferers import sliding_window_inference

    network = _torch_network(job)

    def work() -> None:
        image, profile = _read_tensor(job)
        with torch.inference_mode():
            logits = sliding_window_inference(
                image,
                (job.size, job.size),
                job.batch,
                network,
                overlap=job.overlap / job.size,
                mode="gaussian",
            )
            labels = logits[0].argmax(0).to(torch.uint8).numpy()
        _write_labels(job, labels, profile)

    return work


def terratorch(job: Job) -> Work:
    """terratorch: the whole picture as one tensor, cosine ramps, 8 pixels cut off each window.

    Its package imports torchvision, of which there is no build for the CPU alone, so the module
    is loaded from its file. The one helper that it takes from a neighbour, `pad_images`, is
    imported there and never called.
    """
    import torch

    def pad_images(*_: Any) -> None:
        raise NotImplementedError("tiled inference was not expected to call pad_images")

    absent = types.ModuleType("terratorch.models.utils")
    absent.__dict__["pad_images"] = pad_images
    sys.modules["terratorch.models.utils"] = absent
    tiled_inference = _load_file(
        "terratorch.tasks.tiled_inference", "tasks/tiled_inference.py"
    ).tiled_inference
    network = _torch_network(job)

    def work() -> None:
        image, profile = _read_tensor(job)
        with torch.inference_mode():
            logits = tiled_inference(
                network, image, crop=job.size, stride=job.stride, delta=8, batch_size=job.batch
            )
            labels = logits[0].argmax(0).to(torch.uint8).numpy()
        _write_labels(job, labels, profile)

    return work


def geoai(job: Job) -> Work:
    """geoai: reads windows and writes the map itself, spline weights.

    Its `geoai.utils` imports packages of web maps; the file of it that inference uses, the one
    with `get_device`, takes its place.
    """
    _load_file("geoai.utils", "utils/device.py")
    from geoai.inference import predict_geotiff

    network = _torch_network(job)

    def work() -> None:
        predict_geotiff(
            network,
            str(job.image),
            str(job.labels),
            tile_size=job.size,
            overlap=job.overlap,
            batch_size=job.batch,
            num_classes=len(CLASSES),
            output_dtype="uint8",
            output_nodata=255,
            blend_mode="spline",
            preprocess_fn=lambda tile: tile / np.float32(255),
            postprocess_fn=lambda scores: scores.argmax(0).astype(np.uint8),
            device="cpu",
            compress="deflate",
            verbose=False,
        )

    return work


def torch_alone(job: Job) -> Work:
    """The network over the windows that mapper would run: no file, no blending, no argmax timed."""
    import torch

    network = _torch_network(job)

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(batch)).numpy())

    return lambda: _alone(job, run)


def onnxruntime_alone(job: Job) -> Work:
    """The exported graph over the windows that mapper would run, timed like `torch_alone`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        job.models / f"{job.network}-onnx" / "model.onnx",
        options,
        providers=["CPUExecutionProvider"],
    )

    def run(batch: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {"image": batch})[0])

    run(np.zeros((job.batch, 3, job.size, job.size), dtype=np.float32))
    return lambda: _alone(job, run)


def mapper(job: Job) -> Work:
    """Mapper's engine, writing the same file as the others; the batch is what its probe chose."""
    # as the command sets it: what is read once needs no cache
    os.environ.setdefault("GDAL_CACHEMAX", "64")
    from mapper.inference.card import load_card
    from mapper.inference.engine import make_engine
    from mapper.inference.predict import predict_rows
    from mapper.inference.probe import Wishes, choose
    from mapper.run.images import ImageWishes, describe_image, image_source
    from mapper.run.predict import parse_settings

    card = load_card(str(job.folder))
    image = describe_image(job.image, card, ImageWishes())
    wishes = Wishes(predict=parse_settings(job.settings), device="cpu", trust=True)
    choice = choose(card, wishes, image.coding, job.models / "probes.json")
    engine = make_engine(choice.card, choice.plan, image.coding, choice.runtime)
    shape = (choice.plan.batch, 3, job.size, job.size)
    engine.run(tuple(np.zeros(shape, dtype=layer.dtype) for layer in image.coding.layers))

    def work() -> None:
        with rasterio.open(job.image) as file:
            profile = {n: file.profile[n] for n in ("height", "width", "crs", "transform")}
        with (
            image_source(image) as source,
            rasterio.open(job.labels, "w", **profile, **OUTPUT) as file,
        ):
            for strip in predict_rows(engine, source, image.pixels):
                row = strip.box.row0 - image.pixels.row0
                window = Window(0, row, strip.box.shape[1], strip.box.shape[0])
                file.write(strip.arrays["classes"], 1, window=window)

    return work


def command(job: Job) -> Work:
    """Mapper's command as a user calls it: start, model loading, probe, confidence and COGs too."""
    program = shutil.which("mapper", path=str(Path(sys.executable).parent))
    if program is None:
        raise FileNotFoundError("the mapper command is not beside this Python")
    arguments = ["predict", str(job.image), "--model", str(job.folder), "--trust-model"]
    arguments += ["-o", str(job.labels.parent / "command")]
    for setting in job.settings:
        arguments += ["--set", setting]

    def work() -> None:
        found = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        if found.returncode:
            raise RuntimeError(f"mapper ended with {found.returncode}: {found.stderr[-400:]}")
        shutil.copy(job.labels.parent / "command" / f"{job.image.stem}.tif", job.labels)

    return work


CONTENDERS = {
    "monai": Contender(monai, ("monai", "torch")),
    "terratorch": Contender(terratorch, ("terratorch", "torch")),
    "geoai": Contender(geoai, ("geoai-py", "torch")),
    "torch-alone": Contender(torch_alone, ("torch",)),
    "onnxruntime-alone": Contender(onnxruntime_alone, ("onnxruntime-gpu",)),
    "mapper": Contender(mapper, ("mapper", "onnxruntime-gpu", "torch")),
    "command": Contender(command, ("mapper", "onnxruntime-gpu", "torch")),
}


def _torch_network(job: Job) -> Any:
    """The network, loaded and run once, on all cores."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    network = load(job.network, job.models)
    with torch.inference_mode():
        network(torch.zeros(job.batch, 3, job.size, job.size))
    return network


def _load_file(name: str, place: str) -> types.ModuleType:
    """A module of an installed package, loaded without the package's own `__init__`."""
    package = importlib.util.find_spec(name.partition(".")[0])
    if package is None or package.origin is None:
        raise ModuleNotFoundError(f"{name} is not installed")
    spec = importlib.util.spec_from_file_location(name, Path(package.origin).parent / place)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{name} has no {place}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _read_tensor(job: Job) -> tuple[Any, dict[str, Any]]:
    """The whole picture, scaled, `(1, band, y, x)`, and what the label map takes over from it."""
    import torch

    with rasterio.open(job.image) as file:
        pixels = file.read()
        profile = {n: file.profile[n] for n in ("height", "width", "crs", "transform")}
    return torch.from_numpy(pixels).float().div_(255)[None], profile


def _write_labels(job: Job, labels: np.ndarray, profile: dict[str, Any]) -> None:
    with rasterio.open(job.labels, "w", **profile, **OUTPUT) as file:
        file.write(labels, 1)


def _alone(job: Job, run: Callable[[np.ndarray], np.ndarray]) -> float:
    """Seconds that the network takes for all windows; the map of their middles is written too."""
    with rasterio.open(job.image) as file:
        pixels = file.read()
        profile = {n: file.profile[n] for n in ("height", "width", "crs", "transform")}
    labels = np.zeros(pixels.shape[1:], dtype=np.uint8)
    windows, box = _lattice(job, profile)
    seconds = 0.0
    for start in range(0, len(windows), job.batch):
        group = windows[start : start + job.batch]
        batch = np.stack([_cut(pixels, extent, box) for extent in group])
        began = time.perf_counter()
        scores = run(batch)
        seconds += time.perf_counter() - began
        for extent, one in zip(group, scores, strict=True):
            core = extent.grow(-(job.overlap // 2)).intersect(box)
            part = one[(slice(None), *core.slices_in(extent))]
            labels[core.slices_in(box)] = part.argmax(0)
    _write_labels(job, labels, profile)
    return seconds


def _lattice(job: Job, profile: dict[str, Any]) -> tuple[list[PixelBox], PixelBox]:
    """What each window reads, counted from the origin of the CRS, and the picture's own pixels."""
    place = profile["transform"]
    row, col = round(place.f / place.e), round(place.c / place.a)
    box = PixelBox(row0=row, col0=col, row1=row + profile["height"], col1=col + profile["width"])
    mode = "core" if job.mode == "core" else "blend"
    plan = WindowPlan(size=job.size, stride=job.stride, mode=mode)
    return [window.extent for window in plan.cover(box)], box


def _cut(pixels: np.ndarray, extent: PixelBox, box: PixelBox) -> np.ndarray:
    """A window's pixels, scaled, zero beyond the picture."""
    window = np.zeros((pixels.shape[0], *extent.shape), dtype=np.float32)
    known = extent.intersect(box)
    part = pixels[(slice(None), *known.slices_in(box))]
    window[(slice(None), *known.slices_in(extent))] = part / np.float32(255)
    return window


def _memory() -> Iterator[float]:
    """First what is held now, in MiB, then the highest that it has been since."""
    status = Path("/proc/self/status")
    # 5 forgets the high-water mark
    Path("/proc/self/clear_refs").write_text("5")
    for field in ("VmRSS", "VmHWM"):
        found = re.search(rf"{field}:\s+(\d+)", status.read_text())
        yield int(found.group(1)) / 1024 if found else float("nan")


def measure(name: str, job: Job) -> dict[str, Any]:
    """Get ready, run, and say how it went."""
    contender = CONTENDERS[name]
    work = contender.prepare(job)
    memory = _memory()
    held = next(memory)
    began = time.perf_counter()
    seconds = work()
    if seconds is None:
        seconds = time.perf_counter() - began
    peak = next(memory)
    # a command's own start is in its peak, which errs against mapper
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "contender": name,
        "network": job.network,
        "seconds": round(seconds, 4),
        "peak_mib": round(child if name == "command" else peak - held, 1),
        "held_mib": round(0 if name == "command" else held, 1),
        "versions": {package: version(package) for package in contender.packages},
    }


def main() -> None:
    """Run one contender."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("image", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--network", default="cheap")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--stride", type=int, default=384)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--mode", choices=("core", "blend"), default="blend")
    parser.add_argument("--form", choices=("onnx", "torchscript"), default="onnx")
    parser.add_argument("--set", dest="extra", action="append", default=[])
    wanted = parser.parse_args()
    fields = {n: value for n, value in vars(wanted).items() if n != "contender"}
    fields["extra"] = tuple(wanted.extra)
    print(json.dumps(measure(wanted.contender, Job(**fields))))


if __name__ == "__main__":
    main()
