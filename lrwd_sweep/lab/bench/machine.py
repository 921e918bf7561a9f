"""The machine that a measurement was made on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from lrwd_sweep.engine.host import cores


def machine(gpu: str | None = None) -> dict[str, Any]:
    """JSON-ready: what else a figure depends on, and when it was measured; `gpu` if it is a GPU's."""
    return {
        "gpu": gpu,
        "cpu": _cpu(),
        "cores": cores(),
        "load": load(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "optuna": version("optuna"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def load() -> float | None:
    """How many processes wanted to run in the last minute, on average; None where nobody counts them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu() -> str:
    """The processor's own name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            found = dict(line.split(":", 1) for line in lines if ":" in line)
        names = {key.strip(): value.strip() for key, value in found.items()}
        return names["model name"]
    except (OSError, KeyError):
        return platform.processor() or platform.machine()
