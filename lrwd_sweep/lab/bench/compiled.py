"""The plain way made fast: torch.compile for the network, AdamW with fused=True."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from lrwd_sweep.lab.bench.plain import adamw, fit, steps, study
from lrwd_sweep.lab.bench.task import Curves, Lane, Outcome, begin, data, module, raced
from lrwd_sweep.spec.task import Task


def run(task: Task, lanes: Sequence[Lane], device: torch.device) -> Outcome:
    """Train lane after lane in one network, compiled once: a new one for each would be traced again."""
    splits, net = data(task, device), module(task).to(device)
    fresh = {name: value.clone() for name, value in net.named_buffers()}
    net.compile()

    def train_lane(asked: Task, lane: Lane) -> list[float]:
        begin(net, asked, lane[1])
        net.load_state_dict(fresh, strict=False)
        return fit(net, steps(net, adamw(net, lane, fused=True), asked), asked, splits, lane[1])

    def train(asked: Task, chosen: Sequence[Lane]) -> Curves:
        return study(partial(train_lane, asked), chosen)

    return raced(train, task, lanes, device)
