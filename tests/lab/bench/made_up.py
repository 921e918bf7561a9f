"""Measurements of `bench` that take no time."""

from itertools import count
from typing import Any

from lrwd_sweep.errors import HostError
from lrwd_sweep.lab.bench import ENGINE, Measurement

RUN: list[tuple[str, tuple[int, ...], Measurement]] = []
runs = count()


def in_process(asked: Measurement, name: str, *lanes: int) -> dict[str, Any]:
    """Make the engine faster in every run, the other contenders equally slow, and vmap fail."""
    RUN.append((name, lanes, asked))
    match name:
        case "vmap":
            raise HostError("bench vmap: RuntimeError: [/x] is no batching rule")
        case "floor":
            return {"rate": 16000.0, "flop": 15e6, "validation": 6e6}
        case "scaling":
            slower = 1 + next(runs) / 10
            return {"seconds": [slower * (0.5 + 0.01 * n) for n in lanes], "at_once": 32}
        case "bookkeeping":
            return {"lanes": lanes[0], "sampler": 1.0, "store": 2.0 + next(runs)}
    slower = {"sgdw": 1, "adamw:cautious": 2}.get(asked.optimizer, 1)
    return {"rate": (8000.0 + 800 * next(runs)) / slower if name == ENGINE else 1000.0}
