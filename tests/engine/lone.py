"""One lane in torch.nn, by the reference of its optimizer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lrwd_sweep.data import Split
from lrwd_sweep.engine.lane_state import generator
from lrwd_sweep.lab.bench.contenders import module
from lrwd_sweep.lab.references import lone_rule
from lrwd_sweep.nets import network
from lrwd_sweep.nets.network import call
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task

SEED = 3


def train_alone(
    name: str,
    of: Task,
    cell: Cell,
    train: Split,
    loss: Callable[[Any, Tensor], Tensor] = cross_entropy,
    net: nn.Module | None = None,  # of a user
) -> tuple[nn.Module, list[float]]:
    """Train on a split in float64; return the network, and the loss of every batch."""
    net, losses, order = (net or module(of)).double(), list[float](), generator(SEED, "data order")
    first = network(of).init(generator(SEED, "parameters"))
    rules = {n: lone_rule(Optimizer.parse(name), of, cell.lr, cell.weight_decay) for n in first}
    with torch.no_grad():
        for parameter, value in net.named_parameters():
            value.copy_(first[parameter])
    for t in range(of.steps):
        if t % of.steps_per_epoch == 0:
            batches = iter(torch.randperm(len(train), generator=order).split(of.items_per_step))  # type: ignore[no-untyped-call]
        parts = map(train.batch, next(batches).split(of.batch_size))
        mean = torch.stack([loss(call(net, x), y) for x, y in parts]).mean()
        losses.append(mean.item())
        net.zero_grad()
        mean.backward()  # type: ignore[no-untyped-call]
        if of.clip_norm is not None:
            assert nn.utils.clip_grad_norm_(net.parameters(), of.clip_norm) > of.clip_norm or t
        eta, n = of.timetable.eta(t), of.timetable.steps_of_cycle(t)
        with torch.no_grad():
            for parameter, value in net.named_parameters():
                value.copy_(rules[parameter](value, value.grad, eta, t + 1, n))
    return net, losses
