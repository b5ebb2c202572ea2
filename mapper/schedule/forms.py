"""A run on a schedule, in the words of one's platform: cron around `mapper run`, no more.

A run that is repeated does nothing where nothing changed, holds its folder, and says by its exit
code how it ended; so the platform only has to start it, and never twice at once.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mapper.errors import UsageError
from mapper.schedule.cron import Times

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,50}[a-z0-9])?")
_GRACE = 60
"""Seconds between the platform's asking and its killing; a run drains within 20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be started, and when."""

    name: str
    times: Times
    command: tuple[str, ...]
    """Program and arguments."""
    folder: Path
    """Where it is started."""
    zone: str = "Etc/UTC"
    image: str = ""
    """Of the container, on Kubernetes."""
    claim: str = "mapper"
    """Of the volume with areas, recipes and maps, on Kubernetes."""
    hours: int = 24
    """After which the platform ends it; it then goes on at the next start."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"--name {self.name!r}; take lower-case letters, digits and hyphens, e.g. mapper"
            )


def systemd(job: Job) -> dict[str, str]:
    """A oneshot service, which systemd never starts twice at once, and its timer."""
    calendar = "\n".join(f"OnCalendar={each} {job.zone}" for each in job.times.on_calendar)
    service = f"""\
[Unit]
Description=Maps by mapper ({job.name})
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory={_escaped(str(job.folder))}
ExecStart={" ".join(_quoted(part) for part in job.command)}
TimeoutStartSec={job.hours}h
TimeoutStopSec={_GRACE}
KillMode=mixed
SuccessExitStatus=143
Nice=10
"""
    timer = f"""\
[Unit]
Description=When maps are made by mapper ({job.name})

[Timer]
{calendar}
Persistent=true
RandomizedDelaySec=5m

[Install]
WantedBy=timers.target
"""
    return {f"{job.name}.service": service, f"{job.name}.timer": timer}


def slurm(job: Job) -> dict[str, str]:
    """Lines for `scrontab`, which queues the next run when the last is over."""
    command = shlex.join(job.command)
    # scrontab ends a line at its first %, as cron does
    line = f"cd {shlex.quote(str(job.folder))} && exec {command}".replace("%", "\\%")
    text = f"""\
#SCRON --job-name={job.name}
#SCRON --time={job.hours:02d}:00:00
#SCRON --signal=B:TERM@{_GRACE}
#SCRON --output={job.name}-%j.log
{job.times.text} {line}
"""
    return {f"{job.name}.scrontab": text}


def kubernetes(job: Job) -> dict[str, str]:
    """A CronJob that is never started while it runs. Raises: UsageError without an image."""
    if not job.image:
        raise UsageError("a CronJob needs the image of its container: --image REGISTRY/mapper:TAG")
    container = {
        "name": "mapper",
        "image": job.image,
        "args": list(job.command[1:]),
        "workingDir": "/data",
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "resources": {
            "requests": {"cpu": "2", "memory": "8Gi"},
            "limits": {"memory": "16Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "env": [{"name": "TMPDIR", "value": "/scratch"}, {"name": "HOME", "value": "/scratch"}],
    }
    container["volumeMounts"].append({"name": "scratch", "mountPath": "/scratch"})  # type: ignore[attr-defined]
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": job.claim}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }
    content = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": job.name, "labels": {"app.kubernetes.io/name": "mapper"}},
        "spec": {
            "schedule": job.times.text,
            "timeZone": job.zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 1,
                    "activeDeadlineSeconds": job.hours * 3600,
                    "template": {
                        "metadata": {"labels": {"app.kubernetes.io/name": "mapper"}},
                        "spec": pod,
                    },
                }
            },
        },
    }
    return {f"{job.name}-cronjob.yaml": yaml.safe_dump(content, sort_keys=False)}


FORMS: Mapping[str, Callable[[Job], dict[str, str]]] = {
    "kubernetes": kubernetes,
    "slurm": slurm,
    "systemd": systemd,
}
"""Per platform, files by name."""


def _escaped(text: str) -> str:
    """For systemd, where % begins a specifier."""
    return text.replace("%", "%%")


def _quoted(part: str) -> str:
    """One argument of ExecStart: quoted, and neither % nor $ means anything."""
    text = _escaped(part).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"' if re.search(r"[\s\"';\\]", text) or not text else text


def absolute(arguments: Sequence[str], paths: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Arguments whose named options hold paths that mean the same from anywhere.

    What is no file there stays as it is: the name of a recipe, an address.
    """
    found: list[Any] = list(arguments)
    for number, argument in enumerate(found):
        name, equals, value = argument.partition("=")
        if name in paths and equals:
            found[number] = f"{name}={_absolute(value, name, folder)}"
        elif argument in paths and number + 1 < len(found):
            found[number + 1] = _absolute(found[number + 1], argument, folder)
    return tuple(found)


def _absolute(value: str, option: str, folder: Path) -> str:
    if "://" in value:
        return value
    path = folder / value
    return str(path) if option == "--out" or path.exists() else value
