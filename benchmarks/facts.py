"""What a benchmark says of itself: the machine, the versions, and children that end in time."""

import os
import platform
import signal
import subprocess
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil


def machine() -> dict[str, Any]:
    """What it ran on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        cpu = named[0] if named else cpu
    memory = psutil.virtual_memory().total / 2**30
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory, 1)}


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Of Python and of packages, `not installed` for those that are not."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def watched(command: list[str], limit: float, environment: dict[str, str] | None = None) -> str:
    """What a command prints. It is ended at the limit, or before it takes all memory.

    Raises: RuntimeError with the reason where it gives no result.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env=environment, start_new_session=True
        )
        ended = _wait(process, limit)
        if ended:
            # the command and what it started
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise RuntimeError(ended)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            lines = err.read().strip().splitlines()
            said = lines[-1] if lines else "nothing"
            raise RuntimeError(f"ended with {process.returncode}: {said[-300:]}")
        return out.read()


def _wait(process: subprocess.Popen[bytes], limit: float) -> str:
    """Why a process has to be ended; empty where it ends by itself."""
    began = time.perf_counter()
    while True:
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            if time.perf_counter() - began > limit:
                return f"took more than {limit:g} s"
            if psutil.virtual_memory().percent > 92:
                return "took nearly all of the machine's memory"
        else:
            return ""
