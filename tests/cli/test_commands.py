"""The verbs: what they print, for people and for machines."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mapper import __version__
from mapper.cli.commands import app
from mapper.cli.output import Bars, JsonLines, PlainLines, human_bytes
from mapper.events import Event
from mapper.recipe import data_directory

CITIES = str(data_directory("pipelines") / "cities.geojson")


def output_of(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_version():
    assert output_of("--version").strip() == f"mapper {__version__}"


def test_cities_are_listed_for_people_and_machines():
    assert re.search(r"^Bogota +bogota +Colombia", output_of("cities"), re.MULTILINE)
    listed = json.loads(output_of("cities", "--json"))
    assert len(listed) >= 50
    assert {"name", "slug", "country", "bbox"} <= set(listed[0])


def test_cities_of_another_file(tmp_path):
    path = tmp_path / "a.geojson"
    collection = json.loads(Path(CITIES).read_text())
    collection["features"] = collection["features"][:2]
    path.write_text(json.dumps(collection))
    assert len(output_of("cities", "--aoi", str(path)).splitlines()) == 3


@pytest.mark.parametrize("verb", ["recipes", "models"])
def test_recipes_and_models_are_listed(verb):
    assert len(output_of(verb).splitlines()) >= 3
    assert len(json.loads(output_of(verb, "--json"))) >= 2


def test_help_names_every_verb():
    told = output_of("--help")
    for verb in ("run", "plan", "status", "cities", "recipes", "models", "demo", "simulate"):
        assert re.search(rf"^ *│? *{verb} ", told, re.MULTILINE)


def test_status_of_a_folder_that_never_saw_a_run_is_usage(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mapper", "status", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no folder of a run" in done.stderr


EVENTS = [
    Event(kind="search", city="x", state="done", message="2 found [/red]"),
    Event(kind="step", city="x", stage="ingest", state="planned", done=0, total=2, message="a"),
    Event(kind="step", city="x", stage="ingest", state="done", done=1, total=2, message="1 of 2"),
    Event(kind="step", city="x", stage="ingest", state="failed", message="broken [bold"),
    Event(kind="city", city="x", state="failed", message="it failed"),
]


def test_json_lines_are_json(capsys):
    for event in EVENTS:
        JsonLines()(event)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["message"] for line in lines] == [e.message for e in EVENTS]
    assert "done" not in lines[0]


def test_plain_lines_name_the_city(capsys):
    for event in EVENTS:
        PlainLines()(event)
    assert capsys.readouterr().err.splitlines()[0] == "x: 2 found [/red]"
    for event in EVENTS:
        PlainLines(quiet=True)(event)
    assert capsys.readouterr().err.splitlines() == ["x: broken [bold", "x: it failed"]


def test_bars_show_progress_and_take_any_text():
    import io

    from rich.console import Console

    screen = io.StringIO()
    with Bars(Console(file=screen, force_terminal=True, width=100)) as bars:
        for event in EVENTS:
            bars(event)
    shown = screen.getvalue()
    assert "ingest" in shown
    assert "1/2" in shown
    assert "2 found [/red]" in shown


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (12_340, "12.3 kB"), (5e12, "5 TB")]
)
def test_bytes_are_told_in_units(count, text):
    assert human_bytes(int(count)) == text
