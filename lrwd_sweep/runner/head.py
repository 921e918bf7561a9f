"""The head of a Ray cluster: whether it answers. Loads neither Ray nor torch."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path

from lrwd_sweep.errors import HostError, UsageError, arg

CONNECT = 3.0  # seconds to reach a head


def is_reachable(address: str, seconds: float) -> bool:
    """Tell whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def refuse_unreachable(option: str, address: str) -> None:
    """Raise UsageError for an address that is not HOST:PORT, HostError if no head answers there."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise UsageError(f"{arg(option, address)} is not of the form HOST:PORT; write for example node1:6379")
    if not is_reachable(address, CONNECT):
        raise HostError(
            f"{arg(option, address)}: no head of a Ray cluster answers there; start one on that machine: "
            f"ray start --head --port {port}"
        )


def prepare_ray(*given: object) -> None:
    """Set what Ray reads when it starts: no reports to its makers.

    Raises HostError if it is not installed; `given` is the argument that asks for it.
    """
    if find_spec("ray") is None:
        raise HostError(f"{arg(*given)} needs Ray: pip install 'lrwd-sweep[ray]'")  # type: ignore[arg-type]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns


def show_token() -> None:
    """Let this process show the token of a cluster, if it has one; before Ray is imported."""
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if named or Path("~/.ray/auth_token").expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def address_of(given: str | None) -> str:
    """Return the address that is given, else that of $RAY_ADDRESS, else local: a Ray for this command."""
    return given or os.environ.get("RAY_ADDRESS") or "local"


def refuse_elsewhere(device: str, address: str | None) -> None:
    """Raise UsageError for a device that no cluster has, and what `refuse_unreachable` raises."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"{arg('device', device)} has no effect on a cluster; give auto, cpu or cuda")
    if (found := address_of(address)) not in ("local", "auto"):
        refuse_unreachable("ray_address", found)
    if found != "local":
        show_token()
