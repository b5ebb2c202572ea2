"""`mapper schedule`: the cron form of one's platform around a run."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mapper.errors import UsageError

_PATHS = ("--aoi", "--out", "--recipe", "--model", "--catalog")


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        name="schedule",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(schedule)


def schedule(
    context: typer.Context,
    platform: Annotated[str, typer.Argument(help="`kubernetes`, `slurm` or `systemd`")],
    at: Annotated[
        str, typer.Option(help="When, as five cron fields or @hourly to @yearly")
    ] = "0 3 2 * *",
    name: Annotated[str, typer.Option(help="Of the job")] = "mapper",
    zone: Annotated[str, typer.Option(help="Time zone of the fields")] = "Etc/UTC",
    image: Annotated[str, typer.Option(help="Of the container (kubernetes)")] = "",
    claim: Annotated[str, typer.Option(help="Of the data's volume (kubernetes)")] = "mapper",
    hours: Annotated[int, typer.Option(help="After which a run is ended", min=1)] = 24,
    to: Annotated[
        Path | None, typer.Option(help="Folder to write to, instead of standard output")
    ] = None,
) -> None:
    """Write what starts `mapper run` again and again; give the run's own options after `--`."""
    from mapper.schedule.cron import read_times
    from mapper.schedule.forms import FORMS, Job, absolute
    from mapper.store.files import write_text

    if platform not in FORMS:
        raise UsageError(f"{platform!r} is none of {', '.join(FORMS)}")
    arguments = [each for each in context.args if each != "--"]
    if arguments[:1] != ["run"]:
        raise UsageError(
            "say what is to be run: mapper schedule systemd -- run --aoi cities.geojson "
            "--year 2022 --refresh"
        )
    folder = Path.cwd()
    on_cluster = platform == "kubernetes"
    own = tuple(arguments) if on_cluster else absolute(arguments, _PATHS, folder)
    program = "mapper" if on_cluster else str(Path(sys.argv[0]).resolve())
    job = Job(
        name=name,
        times=read_times(at),
        command=(program, *own),
        folder=folder,
        zone=zone,
        image=image,
        claim=claim,
        hours=hours,
    )
    for file, text in FORMS[platform](job).items():
        if to is None:
            typer.echo(f"# {file}\n{text}")
        else:
            write_text(to / file, text)
            typer.echo(str(to / file))
