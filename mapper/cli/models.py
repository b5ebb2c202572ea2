"""`mapper model`: check, measure, convert and time a model folder."""

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mapper.cli.options import DeviceName, Json, TrustModel
from mapper.cli.output import human_bytes, print_json, print_table
from mapper.errors import MapperError, ModelError, UsageError
from mapper.inference.convert import TARGETS, Target
from mapper.inference.devices import DeviceChoice

if TYPE_CHECKING:
    from mapper.inference.card import ModelCard
    from mapper.inference.coding import Coding
    from mapper.inference.folder import FormCheck, Opening
    from mapper.inference.receptive import Field

app = typer.Typer(
    name="model",
    help="Check, measure, convert and time a model folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Model = Annotated[str, typer.Argument(help="Name of a model, or path of its folder")]
Form = Annotated[str | None, typer.Option(help="Asset key of a form; the first by default")]


@app.command()
def check(
    model: Model,
    form: Annotated[str, typer.Option(help="Asset key of a form, or `all`")] = "all",
    write: Annotated[bool, typer.Option(help="Make the reference first, replacing any")] = False,
    device: DeviceName = "auto",
    trust_model: TrustModel = False,
    json: Json = False,
) -> None:
    """Load each form and hold it against the reference output in the folder."""
    from mapper.inference.card import load_card
    from mapper.inference.folder import check_forms, store_reference

    how, card = opening(trust_model, device), load_card(model)
    if write:
        card = store_reference(card, replace(how, device="cpu"))
    found = check_forms(card, form, how)
    if json:
        print_json({"model": card.name, "forms": [asdict(f) for f in found]})
    else:
        header = ["form", "precision", "library", "relative", "changed", "tolerance", "state"]
        print_table([_check_row(f) for f in found], header)
    bad = [f for f in found if f.state == "refused"]
    if bad:
        why = "; ".join(f"{f.name}: {f.reason}" for f in bad)
        raise ModelError(f"{len(bad)} of {len(found)} forms of {card.name!r} are refused: {why}")


def _check_row(found: "FormCheck") -> list[str]:
    allowed = ", ".join(f"{name} {limit:g}" for name, limit in found.tolerance.items())
    figures = [
        f"{found.measured[name]:.3g}" if name in found.measured else "-"
        for name in ("relative", "changed")
    ]
    state = found.state if found.state != "no reference" else "no reference (--write makes one)"
    return [found.name, found.precision, found.library or found.form, *figures, allowed, state]


@app.command()
def field(
    model: Model,
    form: Form = None,
    write: Annotated[bool, typer.Option(help="Put what was measured into item.json")] = False,
    limit: Annotated[int, typer.Option(help="Side of the largest window to try", min=64)] = 1024,
    trust_model: TrustModel = False,
    json: Json = False,
) -> None:
    """Measure the receptive field: how far from a pixel the input can change its label."""
    from mapper.inference.card import load_card
    from mapper.inference.folder import check_writable, open_unchecked, set_fields
    from mapper.inference.receptive import measure_field, rows_of

    card = load_card(model, form)
    if write:
        check_writable(card.folder)
    found = measure_field(card, open_unchecked(card, opening(trust_model, "cpu")), limit)
    if json:
        print_json({"model": card.name, **asdict(found), "pixels": found.pixels})
    else:
        print_table([list(row) for row in rows_of(found)], ["measured", "value"])
    if write:
        fields: dict[str, Any] = {"mapper:global_context": found.global_context}
        if not found.global_context:
            fields["mapper:receptive_field"] = found.pixels
        set_fields(card.folder, fields)
        return
    _hold_against_card(card, found)


def _hold_against_card(card: "ModelCard", found: "Field") -> None:
    """A field that is larger than the card says leaves seams. Raises: ModelError."""
    remedy = "; correct the card, or let --write do it"
    if found.global_context and not card.global_context:
        raise ModelError(
            f"model {card.name!r} looks beyond windows of {found.window} pixels, its card says "
            f"{card.receptive_field} and no mapper:global_context{remedy}"
        )
    if not card.global_context and found.pixels > card.receptive_field:
        raise ModelError(
            f"model {card.name!r} sees {found.pixels} pixels, its card says "
            f"{card.receptive_field}: maps would have seams{remedy}"
        )


@app.command()
def convert(
    model: Model,
    to: Annotated[Target, typer.Option(help=f"One of {', '.join(TARGETS)}")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; not there yet")],
    calibrate: Annotated[
        list[Path] | None, typer.Option(help="Image or cube.zarr of real pixels; may be repeated")
    ] = None,
    samples: Annotated[int, typer.Option(help="Windows to cut from them", min=2)] = 32,
    scale: Annotated[
        float | None, typer.Option(help="Stored values times this are in physical units")
    ] = None,
    trust_model: TrustModel = False,
    json: Json = False,
) -> None:
    """Copy a model folder and add a form of another precision, or a compiled one."""
    from mapper.inference.card import load_card
    from mapper.inference.convert import convert_model

    card, how = load_card(model), opening(trust_model, "cpu")
    if out.exists():
        raise UsageError(f"{out} is there already; name a folder that is not")
    windows = real_windows(card, calibrate, (samples, scale), how)
    found = convert_model(card, to, out, windows, how)
    if json:
        print_json(asdict(found))
        return
    where = f"{found.windows} held-out windows" if found.windows else "the reference input"
    allowed = ", ".join(f"{name} {limit:g}" for name, limit in found.tolerance.items())
    rows = [
        ["form", found.name],
        ["size", f"{human_bytes(found.bytes_before)} -> {human_bytes(found.bytes_after)}"],
        ["measured on", where],
        ["relative difference", f"{found.disagreement['relative']:.3g}"],
    ]
    if "changed" in found.disagreement:
        noise = f"{found.reference['changed']:.3%} of the reference input"
        rows.append(["changed labels", f"{found.disagreement['changed']:.3%} ({noise})"])
    rows.append(["tolerance", allowed])
    print_table(rows, [str(out), ""])


def real_windows(
    card: "ModelCard",
    paths: list[Path] | None,
    wishes: tuple[int, float | None],
    how: "Opening",
) -> list[Any]:
    """Scaled windows of real pixels: how many, and what stored values are times; none of none."""
    from mapper.inference.card import load_card
    from mapper.inference.folder import open_unchecked
    from mapper.run.calibrate import calibration_windows
    from mapper.run.images import ImageWishes

    if not paths:
        return []
    samples, scale = wishes
    whole = next((a for a in card.artifacts if a.precision == "float32"), card.artifact)
    runtime = open_unchecked(load_card(str(card.folder), whole.name), how)
    size = runtime.fixed_size or min(int(card.window.get("size", 512)), 256)
    return calibration_windows(paths, card, size, samples, ImageWishes(scale=scale))


@app.command()
def probe(
    model: Model,
    device: DeviceName = "auto",
    trust_model: TrustModel = False,
    json: Json = False,
) -> None:
    """Time each form, window and batch on this machine, in core pixels a second."""
    from mapper.inference.card import load_card

    card = load_card(model)
    sizes = list(card.window.get("sizes", [])) or [None]
    rows = []
    for artifact in card.artifacts:
        for size in sizes:
            rows += _times(card, artifact.name, size, opening(trust_model, device))
    if json:
        print_json({"model": card.name, "measured": rows})
        return
    shown = [
        [r["form"], r["precision"], str(r["window"]), str(r["core"]), str(r["batch"]), r["text"]]
        for r in rows
    ]
    print_table(shown, ["form", "precision", "window", "core", "batch", "core pixels a second"])


def _times(card: "ModelCard", form: str, size: int | None, how: "Opening") -> list[dict[str, Any]]:
    """One form and window at growing batches, until more do not help or do not fit."""
    from mapper.inference.devices import free_memory
    from mapper.inference.engine import make_engine
    from mapper.inference.memory import predict_memory
    from mapper.inference.probe import BATCHES, WORTHWHILE, Wishes, choose, core_rate
    from mapper.recipe import Predict

    precision = next(a.precision for a in card.artifacts if a.name == form)
    about = {"form": form, "precision": precision, "window": size or "-"}
    rows: list[dict[str, Any]] = []
    best, coding = 0.0, _coding(card)
    for batch in BATCHES:
        try:
            wanted = Predict(form=form, size=size, batch=batch, threads=how.threads)
            wishes = Wishes(predict=wanted, device=how.device, trust=how.trust)
            choice = choose(card, wishes, coding, None)
            plan = choice.plan
            if rows and predict_memory(choice.card, plan, coding, plan.size) > free_memory() / 2:
                break
            rate = core_rate(make_engine(choice.card, plan, coding, choice.runtime))
        except MapperError as reason:
            if not rows:
                rows = [{**about, "core": "-", "batch": batch, "rate": None, "text": str(reason)}]
            break
        found = {**about, "window": plan.size, "core": plan.stride, "batch": batch}
        rows.append({**found, "rate": rate, "text": f"{rate / 1e6:.3g} million"})
        if rate < best * WORTHWHILE:
            break
        best = max(best, rate)
    return rows


def _coding(card: "ModelCard") -> "Coding":
    """All bands as they usually are stored: bytes for imagery, else 16 bit with a nodata."""
    from mapper.inference.coding import Coding, Layer

    channels = tuple(range(len(card.bands)))
    if card.data_type == "uint8":
        layer = Layer(name="probe", dtype="uint8", channels=channels)
    else:
        layer = Layer(name="probe", dtype="uint16", scale=1e-4, nodata=0, channels=channels)
    return Coding(layers=(layer,), bands=len(channels))


def opening(trust: bool, device: DeviceChoice) -> "Opening":
    from mapper.inference.folder import Opening

    return Opening(threads=min(64, os.cpu_count() or 1), trust=trust, device=device)
