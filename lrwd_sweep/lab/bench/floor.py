"""The floor: the speed of training's matrix products without anything else, on all cores or on a GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lrwd_sweep.data import EVAL_BATCH
from lrwd_sweep.engine.graph import current
from lrwd_sweep.engine.host import cores
from lrwd_sweep.lab.bench.measurement import Measurement
from lrwd_sweep.lab.bench.workload import Work, module, recorded
from lrwd_sweep.nets import network
from lrwd_sweep.nets.precision import compute_type
from lrwd_sweep.spec.task import Task

SECONDS = 1.0
STACK = {"cpu": 16, "cuda": 128}  # lanes in one bmm if the engine stacks the network, else one


class Product(NamedTuple):
    """(L, M, K) times (L, K, N)."""

    m: int
    k: int
    n: int


def epoch(task: Task) -> tuple[list[Product], list[Product]]:
    """List the products of one lane's step, in which the data has no gradient, and of its validation."""
    net, sizes = module(task).to("meta"), task.data_set
    forward = products(net, torch.empty(task.batch_size, *sizes.shape, device="meta"))
    of_left = [Product(m, n, k) for m, k, n in forward]
    of_right = [Product(k, m, n) for m, k, n in forward[1:]]
    validation = torch.empty(sizes.validation, *sizes.shape, device="meta").split(EVAL_BATCH)  # type: ignore[no-untyped-call]
    return forward + of_left + of_right, [product for x in validation for product in products(net, x)]


def flop(chosen: Sequence[Product]) -> int:
    """Count a multiplication and an addition per term, for one lane."""
    return 2 * sum(map(math.prod, chosen))


def products(net: nn.Module, x: Tensor) -> list[Product]:
    """List W h of every linear and convolutional layer on x; a convolution's N is images × pixels."""
    found: list[Product] = []

    def note(layer: nn.Module, _: object, out: Tensor) -> None:
        weight, groups = layer.weight, getattr(layer, "groups", 1)
        assert isinstance(weight, Tensor)
        rows = len(weight)
        found.append(Product(rows // groups, weight[0].numel(), groups * out.numel() // rows))

    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return found


def floor(asked: Measurement) -> dict[str, Any]:
    """Measure lane-steps per second of the products, a thread per core; count operations per lane-step."""
    task, device = asked.task, torch.device(asked.device)
    like = torch.empty(0, device=device, dtype=compute_type(task.precision, torch.zeros(0)))
    stack = STACK[device.type] if network(task).stacked else 1
    threads, steps = cores() if device.type == "cpu" else 1, task.steps_per_epoch
    step, validation = epoch(task)

    def epochs_per_second(_: int) -> float:
        with current(device):
            take_step, validate = (_program(part, stack, like) for part in (step, validation))
        done, began = -1, 0.0
        while done < 1 or time.perf_counter() - began < SECONDS:
            for _ in range(steps):
                take_step()
            validate()
            if like.is_cuda:
                torch.cuda.synchronize(device)
            done += 1
            if not done:  # the first epoch was a warm-up
                began = time.perf_counter()
        return done / (time.perf_counter() - began)

    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads) as pool:
        rate = stack * steps * sum(pool.map(epochs_per_second, range(threads)))
    of_validation = flop(validation) / steps
    return {"rate": rate, "flop": flop(step) + of_validation, "validation": of_validation}


def _program(chosen: Sequence[Product], stack: int, like: Tensor) -> Work:
    """Return a function that carries the products out in turn, in the same memory: it stays in cache."""
    sizes = [[(p.m, p.k), (p.k, p.n), (p.m, p.n)] for p in chosen]
    flat = [like.new_ones(stack * max(map(math.prod, shapes))) for shapes in zip(*sizes, strict=True)]
    views = [
        [x[: stack * m * n].view(stack, m, n) for x, (m, n) in zip(flat, shapes, strict=True)]
        for shapes in sizes
    ]

    @torch.inference_mode()
    def run() -> None:
        for a, b, c in views:
            torch.bmm(a, b, out=c)

    return recorded(run, like.device)
