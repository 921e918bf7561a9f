"""One measurement, in a process that was started for it: the order on the command line, JSON to stdout."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

from lrwd_sweep.errors import LrwdError
from lrwd_sweep.lab.bench.contenders import ENTRIES
from lrwd_sweep.lab.bench.order import Order


def measured(order: Order) -> dict[str, Any]:
    """JSON-ready."""
    module = import_module(f"lrwd_sweep.lab.bench.{order.module}")
    import torch  # noqa: PLC0415  # is loaded by now

    from lrwd_sweep.engine.graph import current  # noqa: PLC0415
    from lrwd_sweep.lab.bench.task import choose_lanes  # noqa: PLC0415

    device = torch.device(order.device)
    with current(device):
        if order.module not in {entry.module for entry in ENTRIES}:
            found: dict[str, Any] = module.measure(order)
            return found
        lanes = choose_lanes(order.lattice, *order.lanes)
        outcome = module.run(order.task, lanes, device)
        return {"rate": len(lanes) * order.task.steps / outcome.seconds}


def main(order: str) -> None:
    """Carry out an order in JSON and exit."""
    try:
        print(json.dumps(measured(Order.from_json(order))))  # noqa: T201 - to who ordered it
    except LrwdError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
