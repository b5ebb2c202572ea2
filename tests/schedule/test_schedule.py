"""Schedules: the same times in every form, and commands that survive their quoting."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mapper.cli.commands import app
from mapper.errors import UsageError
from mapper.schedule.cron import NAMED, read_times
from mapper.schedule.forms import FORMS, Job, absolute, kubernetes, slurm, systemd


def job(command=("mapper", "run"), at="0 3 2 * *", **more):
    return Job(name="maps", times=read_times(at), command=command, folder=Path("/srv/maps"), **more)


@pytest.mark.parametrize(
    ("cron", "calendar"),
    [
        ("0 3 2 * *", ("*-*-02 03:00:00",)),
        ("*/20 * * * *", ("*-*-* *:00,20,40:00",)),
        ("15 6 * 1-12/3 *", ("*-01,04,07,10-* 06:15:00",)),
        ("0 0 * * 0", ("Sun *-*-* 00:00:00",)),
        ("0 0 * * 5-7", ("Sun,Fri,Sat *-*-* 00:00:00",)),
        ("30 4 1,15 * 1", ("*-*-01,15 04:30:00", "Mon *-*-* 04:30:00")),
        ("5/20 2 * * *", ("*-*-* 02:05,25,45:00",)),
    ],
)
def test_cron_as_calendar(cron, calendar):
    assert read_times(cron).on_calendar == calendar


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    day=st.integers(1, 31),
    month=st.sampled_from(["*", "1-6", "*/4", "2,11"]),
)
def test_systemd_understands_every_calendar(minute, hour, day, month):
    for each in read_times(f"{minute} {hour} {day} {month} *").on_calendar:
        line = ["systemd-analyze", "calendar", each]
        subprocess.run(line, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0 3 2 *", "4 fields"),
        ("60 3 2 * *", "minute from 0 to 59"),
        ("0 3 0 * *", "day of the month from 1 to 31"),
        ("0 5-3 * * *", "hour from 0 to 23"),
        ("0 3 x * *", "'x' is no day of the month"),
        ("*/0 * * * *", "minute from 0 to 59"),
        ("0 0 * * mon", "'mon' is no day of the week"),
        ("@often", "1 fields"),
    ],
)
def test_times_that_are_none_are_refused(text, what):
    with pytest.raises(UsageError, match=what):
        read_times(text)


def test_names_are_those_of_cron():
    assert {name: read_times(name).text for name in NAMED} == NAMED


ODD = ("mapper", "run", "--aoi", "my cities.geojson", "--city", 'O\'Hare "x"', "$HOME", "50%", "")


def test_scrontab_gives_the_shell_the_very_arguments(tmp_path):
    text = slurm(job(ODD))["maps.scrontab"]
    line = text.splitlines()[-1]
    assert line.startswith("0 3 2 * * ")
    # what cron hands over: everything to the first bare %, and \% as %
    command = line.removeprefix("0 3 2 * * ").replace("\\%", "%").split("&& exec ", 1)[1]
    assert tuple(shlex.split(command)) == ODD


def test_systemd_parts_are_escaped():
    text = systemd(job(ODD))["maps.service"]
    line = next(x for x in text.splitlines() if x.startswith("ExecStart="))
    assert line == (
        'ExecStart=mapper run --aoi "my cities.geojson" --city "O\'Hare \\"x\\"" $$HOME 50%% ""'
    )


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
def test_systemd_accepts_the_units(tmp_path):
    for name, text in systemd(job(("/bin/true", "my cities.geojson", "50%"))).items():
        (tmp_path / name).write_text(text.replace("/srv/maps", "/"))
    units = sorted(map(str, tmp_path.glob("maps.*")))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_cronjob_never_overlaps_and_is_no_root():
    text = kubernetes(job(("mapper", "run", "--year", "2022"), image="example.org/mapper:1"))
    content = yaml.safe_load(text["maps-cronjob.yaml"])
    assert content["spec"]["concurrencyPolicy"] == "Forbid"
    assert content["spec"]["schedule"] == "0 3 2 * *"
    pod = content["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["containers"][0]["args"] == ["run", "--year", "2022"]
    with pytest.raises(UsageError, match="--image"):
        kubernetes(job())


def test_names_are_safe_everywhere():
    for name in ("Maps", "a b", "-a", "a/b", "x" * 60, ""):
        with pytest.raises(UsageError, match="--name"):
            Job(name=name, times=read_times("@daily"), command=("mapper",), folder=Path("/"))


def test_paths_mean_the_same_from_anywhere(tmp_path):
    (tmp_path / "a.geojson").write_text("{}")
    given = ("run", "--aoi", "a.geojson", "--recipe", "spectral-10m", "--out=maps")
    given += ("--catalog", "https://example.org/stac")
    assert absolute(given, ("--aoi", "--out", "--recipe", "--catalog"), tmp_path) == (
        "run",
        "--aoi",
        str(tmp_path / "a.geojson"),
        "--recipe",
        "spectral-10m",
        f"--out={tmp_path / 'maps'}",
        "--catalog",
        "https://example.org/stac",
    )


@pytest.mark.parametrize("platform", sorted(FORMS))
def test_the_verb_writes_its_files(platform, tmp_path):
    line = ["schedule", platform, "--to", str(tmp_path), "--image", "example.org/mapper:1"]
    line += ["--", "run", "--aoi", "cities.geojson", "--year", "2022", "--refresh"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    texts = "".join(p.read_text() for p in tmp_path.iterdir())
    assert "--refresh" in texts
    assert done.output.split() == [str(p) for p in sorted(tmp_path.iterdir())]


def test_only_runs_are_scheduled():
    done = CliRunner().invoke(app, ["schedule", "systemd", "--", "rm"])
    assert isinstance(done.exception, UsageError)
