"""The floor: how fast the matrix products of training alone run, on all cores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrwd_sweep.bench.order import Order
from lrwd_sweep.bench.task import data, module
from lrwd_sweep.engine.trainer import EVAL_BATCH
from lrwd_sweep.host import cores
from lrwd_sweep.nets import network
from lrwd_sweep.training import Training

SECONDS = 1.0
STACK = 16  # lanes whose products are one bmm where the engine stacks lanes; else each is one of its own


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
    def of(cls, training: Training, net: nn.Module, train: Tensor, validation: Tensor) -> Epoch:
        """Of a network on the inputs of its two splits; the data has no gradient."""
        forward = products(net, train[: training.batch_size])
        backward = [product for each in forward for product in each.backward()]
        del backward[1]
        evaluated = [product for x in validation.split(EVAL_BATCH) for product in products(net, x)]  # type: ignore[no-untyped-call]
        return cls(training.steps_per_epoch, (*forward, *backward), tuple(evaluated))

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
    training, splits = order.training, data(order.training)
    stack = STACK if network(training).stacked else 1
    epoch = Epoch.of(training, module(training), splits.train.x, splits.validation.x)
    torch.set_num_threads(1)
    with ThreadPoolExecutor(cores()) as threads:
        rates = threads.map(lambda _: _rate(epoch, stack), range(cores()))
        return {"rate": sum(rates), "flop": epoch.flop, "validation": epoch.validation_flop}


def _rate(epoch: Epoch, stack: int) -> float:
    """Lane-steps per second of one thread."""
    step = _program(epoch.step, stack)
    validation = _program(epoch.validation, stack)
    done, began = -1, 0.0
    while done < 1 or time.perf_counter() - began < SECONDS:
        for _ in range(epoch.steps):
            step()
        validation()
        done += 1
        if not done:  # the first one was to warm up
            began = time.perf_counter()
    return done * epoch.steps * stack / (time.perf_counter() - began)


def _program(chosen: Sequence[Product], stack: int) -> Callable[[], None]:
    """What carries the products out, one after another, in the same memory: it stays in the cache."""
    left = torch.ones(stack * max(p.m * p.k for p in chosen))
    right = torch.ones(stack * max(p.k * p.n for p in chosen))
    out = torch.empty(stack * max(p.m * p.n for p in chosen))
    shaped = [
        (_view(left, stack, p.m, p.k), _view(right, stack, p.k, p.n), _view(out, stack, p.m, p.n))
        for p in chosen
    ]

    @torch.inference_mode()
    def run() -> None:
        for a, b, c in shaped:
            torch.bmm(a, b, out=c)

    return run


def _view(flat: Tensor, *shape: int) -> Tensor:
    return flat[: math.prod(shape)].view(shape)
