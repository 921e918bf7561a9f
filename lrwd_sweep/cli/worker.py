"""`lrwd-sweep worker`: this machine as a node of a Ray cluster, by `ray start` in a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Annotated

import typer

from lrwd_sweep.cli.parse import whole
from lrwd_sweep.errors import HostError, arg, brief
from lrwd_sweep.report.view import consoles
from lrwd_sweep.runner.cluster import CONNECT, is_reachable, prepare_ray, refuse_unreachable, show_token
from lrwd_sweep.runner.signals import handlers_kept

JOIN = 60.0  # seconds to join a cluster
LEAVE = 10.0  # seconds to leave it


def worker(
    head: Annotated[
        str, typer.Option("--head", metavar="HOST:PORT", help="Head of the cluster, as ray start printed it.")
    ],
    cpus: Annotated[
        int | None,
        typer.Option(
            "--num-cpus", metavar="N", parser=whole("--num-cpus", 0), help="Packs at a time on CPUs [all]"
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option("--num-gpus", metavar="N", parser=whole("--num-gpus", 0), help="GPUs to use [all]"),
    ] = None,
) -> None:
    """Let packs of `--executor ray` train on this machine, until Ctrl-C.

    Start a head with `ray start --head --port 6379` on a machine that all reach, then this on every other.
    Nodes may come late and leave early: a pack that trains on one that leaves is trained again elsewhere.
    """
    prepare_ray("head", head)
    show_token()
    refuse_unreachable("head", head)
    consoles.note(f"joining the Ray cluster of {head}")
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
            consoles.note(f"joined {head}; packs train here as they come; Ctrl-C leaves")
            while process.poll() is None and is_reachable(head, CONNECT):
                time.sleep(1)
            raise HostError(f"the Ray head at {head} is gone; this node has left")
        finally:
            _end(process)


def _last(said: IO[bytes]) -> str:
    """Return the last line of a process's output that tells anything."""
    said.seek(0)
    lines = said.read().decode(errors="replace").splitlines()
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
