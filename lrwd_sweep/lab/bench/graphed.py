"""The plain way in a CUDA graph: a step is recorded once and replayed, network after network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lrwd_sweep.data import Split
from lrwd_sweep.lab.bench.plain import Step, fit, loss, study
from lrwd_sweep.lab.bench.recorded import recorded
from lrwd_sweep.lab.bench.task import Curves, Lane, Outcome, begin, data, module, raced
from lrwd_sweep.spec.task import Task


def run(task: Task, lanes: Sequence[Lane], device: torch.device) -> Outcome:
    """Train lane after lane in one network, by one recording: a new one for each would take time."""
    splits, net = data(task, device), module(task).to(device)
    fresh = {name: value.clone() for name, value in net.named_buffers()}
    recording = Recording(net, task, splits.train)

    def train_lane(asked: Task, lane: Lane) -> list[float]:
        begin(net, asked, lane[1])
        net.load_state_dict(fresh, strict=False)
        return fit(net, recording.steps(asked, lane), asked, splits, lane[1])

    def train(asked: Task, chosen: Sequence[Lane]) -> Curves:
        return study(partial(train_lane, asked), chosen)

    return raced(train, task, lanes, device)


class Recording:
    """A step of a network and of AdamW, fused, whose batch, learning rate and decay lie on the device."""

    def __init__(self, net: nn.Module, task: Task, split: Split) -> None:
        self.x, self.y = split.batch(torch.arange(task.batch_size, device=split.device))
        self.alpha, self.kept = (torch.zeros((), device=split.device) for _ in range(2))
        parameters: list[Tensor] = list(net.parameters())
        self.optimizer = torch.optim.AdamW(
            parameters,
            lr=self.alpha,
            weight_decay=0.0,  # a number, which would be recorded; `kept` takes its place
            fused=True,
            capturable=split.device.type == "cuda",
        )

        def step() -> None:
            self.optimizer.zero_grad()
            loss(net, task, self.x, self.y).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                torch._foreach_mul_(parameters, self.kept)
            self.optimizer.step()

        net.train()
        self.replay = recorded(step, split.device)

    def steps(self, task: Task, lane: Lane) -> Step:
        """What takes one step after another for a lane that begins."""
        cell, _ = lane
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        etas = map(task.timetable.eta, range(task.steps))

        def step(x: Tensor, y: Tensor) -> None:
            eta = next(etas)
            self.x.copy_(x)
            self.y.copy_(y)
            self.alpha.fill_(eta * cell.lr)
            self.kept.fill_(1 - eta * cell.lr * cell.weight_decay)
            self.replay()

        return step
