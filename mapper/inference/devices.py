"""Which devices there are, and how much memory."""

import ctypes
import logging
import os
import platform
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from mapper.errors import DeviceError
from mapper.inference.card import ModelCard
from mapper.inference.runtime import Device, Runtime, load_runtime

logger = logging.getLogger(__name__)

DeviceChoice = Literal["auto", "cpu", "cuda", "tensorrt"]


@lru_cache(maxsize=1)
def cuda_devices() -> int:
    """CUDA devices that the driver lists; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def open_model(
    card: ModelCard,
    threads: int,
    trust: bool,
    wanted: DeviceChoice,
    load: Callable[[ModelCard, int, bool, Device], Runtime] = load_runtime,
) -> tuple[Runtime, Device]:
    """A model on the device asked for; `auto` takes a CUDA device where there is one.

    Raises: ModelError; DeviceError where the device was named and cannot be used.
    """
    if wanted != "auto":
        return load(card, threads, trust, wanted), wanted
    if cuda_devices():
        try:
            return load(card, threads, trust, "cuda"), "cuda"
        except DeviceError as reason:
            logger.warning("the CUDA device is not used: %s", reason)
    return load(card, threads, trust, "cpu"), "cpu"


def device_name(device: Device) -> str:
    """What tells one kind of device from another, e.g. the processor's name."""
    if device == "cpu":
        return f"{_processor()}, {os.cpu_count()} cores"
    found = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    for path in found:
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("Model:"):
                return line.split(":", 1)[1].strip()
    return device


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def free_memory() -> int:
    """Bytes that can still be used on this machine, or in its control group."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, max(0, limit - used))
