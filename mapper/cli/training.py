"""`mapper samples`, `train`, `export` and `evaluate`: from cubes and labels to a model folder."""

import logging
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mapper.cli.models import opening, real_windows
from mapper.cli.options import City, Json, TrustModel
from mapper.cli.output import human_bytes, print_json, print_line, print_table, show_events
from mapper.errors import UsageError
from mapper.inference.convert import Target
from mapper.recipe import Recipe, load_recipe
from mapper.recipe.settings import changed, train_section, with_samples
from mapper.recipe.training import Data

if TYPE_CHECKING:
    from mapper.run.samples.samples import SamplesReport
    from mapper.training.data.labelled import LabelledImage, LabelledSet

logger = logging.getLogger(__name__)

DataAt = Annotated[Path, typer.Option(help="Folder of labelled images")]
Layout = Annotated[
    str | None,
    typer.Option(help="How the folder is laid out; `samples` where it holds samples.json"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE of the recipe's train section, e.g. epochs=5"),
]


def samples(
    run: Annotated[Path, typer.Argument(help="What `run --out` named")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the samples, new or empty")],
    labels: Annotated[
        Path | None, typer.Option(help="GeoTIFF, folder or static catalog of labels")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="YAML or JSON of the labels' classes")
    ] = None,
    pseudo: Annotated[bool, typer.Option(help="Label by the run's own map")] = False,
    confidence: Annotated[
        float, typer.Option(help="Least confidence of pseudo-labels", min=0, max=1)
    ] = 0.8,
    points: Annotated[
        Path | None, typer.Option(help="Points to cut around, instead of drawn ones")
    ] = None,
    stratify: Annotated[str, typer.Option(help="`class`, `city` or `none`")] = "class",
    per_class: Annotated[int | None, typer.Option(help="Of each class of a city", min=1)] = None,
    count: Annotated[int | None, typer.Option(help="In all", min=1)] = None,
    size: Annotated[int, typer.Option(help="Side of a patch in pixels", min=16)] = 256,
    block: Annotated[
        float | None, typer.Option(help="Metres: one patch at most per square of this side")
    ] = None,
    city: City = None,
    product: Annotated[str | None, typer.Option(help="Recipe and period, of several")] = None,
    format: Annotated[str, typer.Option(help="`geotiff` or `zarr`")] = "geotiff",
    seed: Annotated[int, typer.Option(help="Of the points", min=0)] = 0,
    json: Json = False,
) -> None:
    """Cut labelled patches out of a run's cubes, to train on."""
    from mapper.run.samples.samples import SampleOptions, make_samples

    options = SampleOptions(
        run=run,
        out=out,
        labels=labels,
        classes=classes,
        pseudo=pseudo,
        confidence=confidence,
        points=points,
        per_class=per_class,
        count=count,
        stratify=stratify,  # type: ignore[arg-type]
        size=size,
        format=format,  # type: ignore[arg-type]
        seed=seed,
        cities=tuple(city or ()),
        product=product,
        block=block,
    )
    with show_events(json) as listener:
        report = make_samples(options, listener)
    if json:
        print_line({"kind": "done", **report.to_dict()})
    else:
        _print_samples(report)


def _print_samples(report: "SamplesReport") -> None:
    header = ["city", "samples", "in the middle", "dropped", "short of"]
    counted = [(c.classes, c.dropped, c.short) for c in report.cities]
    rows = [
        [city.slug, str(city.samples), *(_counts(part) for part in parts)]
        for city, parts in zip(report.cities, counted, strict=True)
    ]
    print_table(rows, header)
    for slug, reason in report.skipped.items():
        typer.echo(f"{slug}: {reason}", err=True)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name or 'no class'} {n}" for name, n in counts.items()) or "-"


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or path of one")],
    data: DataAt,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the training")],
    layout: Layout = None,
    setting: Settings = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Weights to begin with; classes may differ")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that read patches", min=0)] = 0,
    device: Annotated[
        str, typer.Option(help="`auto`, `cpu` or `cuda`: where the network learns")
    ] = "auto",
    devices: Annotated[int, typer.Option(help="GPUs that train side by side", min=1)] = 1,
    json: Json = False,
) -> None:
    """Train a recipe's network on labelled images; run it again to resume."""
    from mapper.training.train import TrainOptions, train_model

    chosen = with_data(load_recipe(recipe), data, layout, setting)
    options = TrainOptions(
        recipe=chosen,
        data=data,
        out=out,
        start=start,
        workers=workers,
        device=device,  # type: ignore[arg-type]
        devices=devices,
    )
    with show_events(json) as listener:
        report = train_model(options, listener)
    if json:
        print_line({"kind": "done", **asdict(report), "out": str(report.out)})
        return
    rows = [[k, f"{v:.4f}"] for k, v in report.scores.items()]
    print_table([["epoch", str(report.epoch)], *rows], [str(report.out), "held out"])


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a training, or its weights")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder to write")],
    format: Annotated[
        list[str] | None, typer.Option(help="onnx, torchscript or pt2; may be repeated")
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Add a form of 16 bit")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Add a form of 8 bit")] = False,
    calibrate: Annotated[
        list[Path] | None, typer.Option(help="Image or cube.zarr of real pixels, for --int8")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model; the folder's by default")] = None,
    json: Json = False,
) -> None:
    """Turn trained weights into a model folder; every form is held against the network."""
    from mapper.inference.card import load_card
    from mapper.inference.convert import convert_model
    from mapper.training.export import ExportOptions, export_formats, export_model
    from mapper.training.weights import load_weights

    if fp16 and int8:
        raise UsageError("--fp16 and --int8 are two forms; export once and convert the other")
    formats = export_formats(format or ["onnx"])
    if (fp16 or int8) and formats != ("onnx",):
        raise UsageError("--fp16 and --int8 are of --format onnx; take the other formats out")
    target: Target | None = "float16" if fp16 else "int8" if int8 else None
    plain = out if target is None else out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    options = ExportOptions(out=plain, name=name or out.name, formats=formats)
    try:
        found = export_model(load_weights(checkpoint), options)
        forms = dict(found.forms)
        if target:
            how = opening(False, "cpu")
            card = load_card(str(plain))
            made = convert_model(
                card, target, out, real_windows(card, calibrate, (32, None), how), how
            )
            forms[made.name] = made.disagreement
    finally:
        if target:
            shutil.rmtree(plain, ignore_errors=True)
    if json:
        print_json({**asdict(found), "forms": forms, "folder": str(out)})
        return
    rows = [
        [key, f"{off['relative']:.3g}", f"{off.get('changed', 0):.3%}"]
        for key, off in forms.items()
    ]
    print_table(rows, ["form", "relative difference", "changed labels"])
    sees = "the whole window" if found.global_context else f"{found.receptive_field} pixels"
    typer.echo(f"{out}: sees {sees}, {human_bytes(found.bytes)}")


def evaluate(
    model: Annotated[str, typer.Argument(help="Name of a model, or path of its folder")],
    data: DataAt,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe whose data section and split apply")
    ] = None,
    layout: Layout = None,
    setting: Settings = None,
    part: Annotated[
        str, typer.Option(help="`validation` or `train` of the recipe's split, or `all`")
    ] = "all",
    crosswalk: Annotated[
        Path | None,
        typer.Option(help="YAML of `labels`, `model` and `classes`: what is scored as what"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the report")] = None,
    write: Annotated[bool, typer.Option(help="Put temperature and scores into the card")] = False,
    trust_model: TrustModel = False,
    json: Json = False,
) -> None:
    """Hold a model against labelled images: confusion, IoU, kappa, calibration."""
    from mapper.inference.card import load_card
    from mapper.inference.runtime import load_runtime
    from mapper.training.counterparts import read_crosswalk
    from mapper.training.evaluate import evaluate as evaluate_model
    from mapper.training.evaluate import store_temperature
    from mapper.training.reports import write_report

    card = load_card(model)
    found, images, names = _data_for(card, data, (recipe, layout, setting, part))
    _check_held_out(card, found, images, write)
    runtime = load_runtime(card, opening(trust_model, "cpu").threads, trust_model)
    walk = read_crosswalk(crosswalk, names)
    with show_events(json) as listener:
        evaluation = evaluate_model(card, runtime, found, images, walk, listener)
    if out:
        write_report(evaluation, out)
    if write:
        store_temperature(card.folder, evaluation)
    if json:
        print_line({"kind": "done", **evaluation.to_dict()})
        return
    scores = evaluation.scores
    rows = [
        [c.name, str(c.pixels), *(_share(v) for v in (c.iou, c.f1, c.users, c.producers))]
        for c in scores.classes
    ]
    print_table(rows, ["class", "pixels", "IoU", "F1", "user's", "producer's"])
    typer.echo(
        f"{evaluation.images} images: mIoU {scores.mean_iou:.4f}, overall accuracy "
        f"{scores.accuracy:.4f}, kappa {scores.kappa:.4f}, "
        f"calibration error {evaluation.before.error:.4f}"
        + (
            f", {evaluation.after.error:.4f} at temperature {evaluation.fit.temperature:.3f}"
            if evaluation.after and evaluation.fit
            else ""
        )
    )


def _check_held_out(
    card: Any, data: "LabelledSet", images: "list[LabelledImage]", write: bool
) -> None:
    """Say where a model is scored on what it was trained on. Raises: UsageError if to be kept."""
    training = card.item["properties"].get("mapper:training", {}).get("data", {})
    held = training.get("validation", {}).get("names")
    if held is None or training.get("set") != data.root.name:
        return
    seen = len({image.name for image in images} - set(held))
    if not seen:
        return
    text = f"{seen} of {len(images)} images were not held out when {card.name!r} was trained"
    if write:
        raise UsageError(f"{text}: such scores are not kept; name its recipe and --part validation")
    logger.warning("%s", text)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def with_data(recipe: Recipe, data: Path, layout: str | None, settings: list[str] | None) -> Recipe:
    """A recipe whose train section is as the command line says.

    Raises: UsageError for a setting that it has not.
    """
    if layout in (None, "samples") and (data / "samples.json").is_file():
        recipe = with_samples(recipe)
    return changed(recipe, [f"data.layout={layout}"] * bool(layout) + list(settings or ()))


def _data_for(
    card: Any, root: Path, how: tuple[str | None, str | None, list[str] | None, str]
) -> "tuple[LabelledSet, list[LabelledImage], dict[str, str | None]]":
    """Labelled images of one side of a split, and the recipe's crosswalk."""
    from mapper.training.data.layouts import open_data
    from mapper.training.data.split import split_blocks

    name, layout, settings, part = how
    if part not in ("all", "train", "validation"):
        raise UsageError(f"--part {part!r}; use all, train or validation")
    if name is None:
        if part != "all" or settings:
            raise UsageError("--part and --set are of a recipe: name it with --recipe")
        section = Data(layout=layout or "samples")  # type: ignore[arg-type]
        found = open_data(root, section, card.classes)
        return found, [i for i in found.images if i.label], {}
    recipe = with_data(load_recipe(name), root, layout, settings)
    train = train_section(recipe)
    found = open_data(root, train.data, train.table)
    images = [i for i in found.images if i.label]
    if part != "all":
        sides = split_blocks(images, train.split)
        images = list(sides[0] if part == "train" else sides[1])
    return found, images, dict(train.data.crosswalk)


def add_to(app: typer.Typer) -> None:
    """Hang the verbs into the command line."""
    for verb in (samples, train, export, evaluate):
        app.command()(verb)
