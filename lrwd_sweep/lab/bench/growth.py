"""How long the engine takes for few lanes and for many: what its own process measures."""

from __future__ import annotations

import random
import time
from typing import Any

from lrwd_sweep.engine.host import cores
from lrwd_sweep.lab.bench.order import Order
from lrwd_sweep.lab.bench.ours import ready
from lrwd_sweep.lab.bench.task import choose_lanes
from lrwd_sweep.runner.execution import Execution


def measure(order: Order) -> dict[str, Any]:
    """Seconds of every number of lanes, in random order after a warm-up; and how many train at a time."""
    seconds = {}
    with ready(order.task, order.device) as train:
        train(choose_lanes(order.lattice, cores()))
        for count in random.sample(order.lanes, len(order.lanes)):
            lanes = choose_lanes(order.lattice, count)
            began = time.perf_counter()
            train(lanes)
            seconds[count] = time.perf_counter() - began
    at_once = Execution(order.task, order.device).lanes_at_once()
    return {"seconds": [seconds[count] for count in order.lanes], "at_once": at_once}
