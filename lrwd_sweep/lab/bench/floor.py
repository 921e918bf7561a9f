"""The floor: how fast the matrix products of training alone run, on all cores or on a GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrwd_sweep.data import EVAL_BATCH
from lrwd_sweep.engine.graph import current
from lrwd_sweep.engine.host import cores
from lrwd_sweep.lab.bench.order import Order
from lrwd_sweep.lab.bench.recorded import Work, recorded
from lrwd_sweep.lab.bench.task import module
from lrwd_sweep.nets import network
from lrwd_sweep.nets.precision import compute_type
from lrwd_sweep.spec.task import Task

SECONDS = 1.0
STACK = {"cpu": 16, "cuda": 128}  # lanes with one bmm where the engine stacks them; else each has its own


@dataclass(frozen=True, slots=True)
class Product:
    """(L, M, K) times (L, K, N)."""

    m: int
    k: int
    n: int

    @property
    def flop(self) -> int:
        """A multiplication and an addition per term, for one lane."""
        return 2 * self.m * self.k * self.n

    def backward(self) -> tuple[Product, Product]:
        """The gradients of the left and of the right factor."""
        return Product(self.m, self.n, self.k), Product(self.k, self.m, self.n)


@dataclass(frozen=True, slots=True)
class Epoch:
    """The products of one lane's epoch: every step's, and those of the validation."""

    steps: int
    step: tuple[Product, ...]
    validation: tuple[Product, ...]

    @classmethod
    def of(cls, task: Task) -> Epoch:
        """Of a training's network; the data has no gradient."""
        net, sizes = module(task).to("meta"), task.data_set
        forward = products(net, torch.empty(task.batch_size, *sizes.shape, device="meta"))
        backward = [product for each in forward for product in each.backward()]
        del backward[1]
        validation = torch.empty(sizes.validation, *sizes.shape, device="meta")
        evaluated = [product for x in validation.split(EVAL_BATCH) for product in products(net, x)]  # type: ignore[no-untyped-call]
        return cls(task.steps_per_epoch, (*forward, *backward), tuple(evaluated))

    @property
    def flop(self) -> float:
        """Of one lane's step with its share of the validation."""
        return sum(each.flop for each in self.step) + self.validation_flop

    @property
    def validation_flop(self) -> float:
        """That share."""
        return sum(each.flop for each in self.validation) / self.steps


def products(net: nn.Module, x: Tensor) -> list[Product]:
    """W h of every linear and convolutional layer on x, in order; a convolution's N is images × pixels."""
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


def measure(order: Order) -> dict[str, Any]:
    """Lane-steps per second of the products, a thread per core, and their number of operations."""
    task, device = order.task, torch.device(order.device)
    like = torch.empty(0, device=device, dtype=compute_type(task.precision, torch.zeros(0)))
    stack = STACK[device.type] if network(task).stacked else 1
    epoch, threads = Epoch.of(task), cores() if device.type == "cpu" else 1
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads) as pool:
        rates = pool.map(lambda _: _rate(epoch, stack, like), range(threads))
        return {"rate": sum(rates), "flop": epoch.flop, "validation": epoch.validation_flop}


def _rate(epoch: Epoch, stack: int, like: Tensor) -> float:
    """Lane-steps per second of one thread."""
    with current(like.device):
        step, validation = (_program(part, stack, like) for part in (epoch.step, epoch.validation))
    done, began = -1, 0.0
    while done < 1 or time.perf_counter() - began < SECONDS:
        for _ in range(epoch.steps):
            step()
        validation()
        if like.is_cuda:
            torch.cuda.synchronize(like.device)
        done += 1
        if not done:  # the first one was to warm up
            began = time.perf_counter()
    return done * epoch.steps * stack / (time.perf_counter() - began)


def _program(chosen: Sequence[Product], stack: int, like: Tensor) -> Work:
    """What carries the products out, one after another, in the same memory: it stays in the cache."""
    left = like.new_ones(stack * max(p.m * p.k for p in chosen))
    right = like.new_ones(stack * max(p.k * p.n for p in chosen))
    out = like.new_empty(stack * max(p.m * p.n for p in chosen))
    shaped = [
        (_view(left, stack, p.m, p.k), _view(right, stack, p.k, p.n), _view(out, stack, p.m, p.n))
        for p in chosen
    ]

    @torch.inference_mode()
    def run() -> None:
        for a, b, c in shaped:
            torch.bmm(a, b, out=c)

    return recorded(run, like.device)


def _view(flat: Tensor, *shape: int) -> Tensor:
    return flat[: math.prod(shape)].view(shape)
