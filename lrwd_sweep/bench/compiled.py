"""The plain way made fast: torch.compile for the network, AdamW with fused=True."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lrwd_sweep.bench.plain import adamw, fit, study
from lrwd_sweep.bench.task import Curves, Lane, Outcome, begin, choose_threads, data, module
from lrwd_sweep.training import Training


def run(training: Training, lanes: Sequence[Lane]) -> Outcome:
    """Train lane after lane in one network, compiled once: a new one for each would be traced again."""
    splits, net = data(training), module(training)
    fresh = {name: value.clone() for name, value in net.named_buffers()}
    net.compile()

    def train_lane(asked: Training, lane: Lane) -> list[float]:
        begin(net, asked, lane[1])
        net.load_state_dict(fresh, strict=False)
        return fit(net, adamw(net, lane, fused=True), asked, splits, lane[1])

    def train(asked: Training, chosen: Sequence[Lane]) -> Curves:
        return study(partial(train_lane, asked), chosen)

    choose_threads(train, training, lanes)
    return Outcome.timed(train, training, lanes)
