"""Start-up and bookkeeping are measured on what a sweep really does."""

from __future__ import annotations

from typing import Any

import pytest

from lrwd_sweep.errors import HostError
from lrwd_sweep.lab.bench import bookkeeping
from lrwd_sweep.lab.bench import overhead as measured
from lrwd_sweep.lab.bench.order import Order
from lrwd_sweep.lab.bench.spread import Spread
from tests.lab.bench.made_up import LATTICE, TRAINING


def test_the_command_line_is_timed_to_the_end_of_its_first_epoch() -> None:
    assert 0 < measured.until_first_epoch() < 600


def test_a_command_line_that_trains_nothing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "GRID", ("grid", "--device", "nowhere"))
    with pytest.raises(HostError, match=r"^bench start-up: lrwd-sweep: unknown device 'nowhere'[^\n]*$"):
        measured.until_first_epoch()


def test_every_lane_is_proposed_and_stored() -> None:
    order = Order("bookkeeping", TRAINING.changed(epochs=1), LATTICE, (20,))
    found = bookkeeping.measure(order)
    assert found["lanes"] == 16  # a square lattice of at most so many
    assert min(found["sampler"], found["store"]) > 0


def test_costs_are_per_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(order: Order) -> dict[str, Any]:
        return {"lanes": 100, "sampler": 1.0, "store": 2.0}

    monkeypatch.setattr(Order, "carried_out", pretend)
    monkeypatch.setattr(measured, "until_first_epoch", lambda: 2.5)
    said: list[int] = []
    found = measured.overhead(TRAINING, LATTICE, lanes=100, repeats=2, on_repeat=said.append)
    assert (found.start, found.sampler, found.store) == (
        Spread((2.5, 2.5)),
        Spread((0.01, 0.01)),
        Spread((0.02, 0.02)),
    )
    assert said == [1, 2]
