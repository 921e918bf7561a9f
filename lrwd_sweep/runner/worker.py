"""A machine as a node of a Ray cluster until Ctrl-C: `ray start` in a process, watched by this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lrwd_sweep.errors import HostError, arg, brief
from lrwd_sweep.runner.head import CONNECT, is_reachable, prepare_ray, refuse_unreachable, show_token
from lrwd_sweep.runner.signals import handlers_kept

JOIN = 60.0  # seconds to join a cluster
LEAVE = 10.0  # seconds to leave it


def work(head: str, cpus: int | None, gpus: int | None, tell: Callable[[str], None]) -> None:
    """Join the cluster of a head and stay until a signal, which is raised as always.

    Raises UsageError or HostError if this machine cannot join, or has another version, and once the head is
    gone.
    """
    prepare_ray("head", head)
    show_token()
    refuse_unreachable("head", head)
    tell(f"joining the Ray cluster of {head}")
    options = [f"--num-cpus={cpus}"] * (cpus is not None) + [f"--num-gpus={gpus}"] * (gpus is not None)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={head}", "--block", *options],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with handlers_kept():
                from lrwd_sweep.runner.executors.ray import compare_with_head

                found = compare_with_head(head, lambda: process.poll() is None, JOIN)
            if process.poll() is not None:
                raise HostError(f"{arg('head', head)}: this machine could not join: {_last(said)}")
            if found:
                raise HostError(
                    f"{arg('head', head)}: {'; '.join(found)}; install the head's versions here, or begin "
                    "with the same environment on all machines"
                )
            tell(f"joined {head}; packs train here as they come; Ctrl-C leaves")
            while process.poll() is None and is_reachable(head, CONNECT):
                time.sleep(1)
            raise HostError(f"the Ray head at {head} is gone; this node has left")
        finally:
            _end(process)


def _last(said: object) -> str:
    """Return the last line of a process's output that tells anything."""
    said.seek(0)  # type: ignore[attr-defined]
    lines = said.read().decode(errors="replace").splitlines()  # type: ignore[attr-defined]
    told = [line.strip() for line in lines if "Error" in line or "mismatch" in line] or [
        line.strip() for line in lines if line.strip()
    ]
    if told and "AuthToken" in told[-1]:
        return "the cluster asks for a token; copy ~/.ray/auth_token of the head's machine here"
    return brief(told[-1]) if told else "Ray said nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End `ray start` and all that it started."""
    for number, seconds in ((signal.SIGTERM, LEAVE), (signal.SIGKILL, LEAVE)):
        with suppress(OSError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    for group in _groups_of(process.pid):
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)


def _groups_of(session: int) -> set[int]:
    """Return the process groups of a session that still have processes."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError, ValueError):
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session:
                found.add(int(fields[2]))
    return found
