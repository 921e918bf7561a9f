"""`lrwd-sweep worker`: this machine as a node of a Ray cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from lrwd_sweep.cli.parse import whole
from lrwd_sweep.report.view import consoles


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
    from lrwd_sweep.runner.worker import work

    work(head, cpus, gpus, consoles.note)
