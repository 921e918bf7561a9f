"""A race is run in random order, its ratios are taken repeat by repeat, and nobody's failure stops it."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.errors import HostError
from lrwd_sweep.lab.bench.contenders import ENGINE, Entry, entries
from lrwd_sweep.lab.bench.order import Order
from lrwd_sweep.lab.bench.race import FLOOR, Race, race
from lrwd_sweep.lab.bench.spread import Spread
from tests.lab.bench.made_up import LATTICE, TRAINING

RUN: list[tuple[str, tuple[int, ...]]] = []
PLACES: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _nobody_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is faster in every repeat than before, the others are as slow as ever."""
    faster = count(8, 2)

    def pretend(order: Order) -> dict[str, Any]:
        RUN.append((order.module, order.lanes))
        PLACES[order.module] = order.device
        if order.module == "stacked":
            raise HostError("bench stacked: RuntimeError: no batching rule")
        if order.module == FLOOR:
            return {"rate": 100.0, "flop": 15e6, "validation": 6e6}
        return {"rate": float(next(faster)) if order.module == "ours" else 2.0}

    monkeypatch.setattr(Order, "carried_out", pretend)
    RUN.clear()
    PLACES.clear()


def run(names: list[str], seed: int = 0, repeats: int = 3) -> Race:
    return race(
        entries(names),
        TRAINING,
        LATTICE,
        lanes=27,
        other_lanes=2,
        repeats=repeats,
        seed=seed,
        on_run=lambda name, rate: None,
    )


def test_ratios_are_taken_repeat_by_repeat() -> None:
    ours, plain = run(["plain"]).timings
    assert ours.rate == Spread((8.0, 10.0, 12.0))
    assert plain.lead == Spread((4.0, 5.0, 6.0))
    assert (ours.lanes, plain.lanes) == (27, 2)
    assert run(["plain"]).floor.reached.values == (0.14, 0.16, 0.18)


def test_every_repeat_has_everyone_in_an_order_that_the_seed_decides() -> None:
    run(["plain", "processes"], repeats=8)
    modules = [module for module, _ in RUN]
    rounds = [modules[k : k + 4] for k in range(0, len(modules), 4)]
    assert all(sorted(each) == ["floor", "ours", "plain", "processes"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    before = RUN.copy()
    RUN.clear()
    run(["plain", "processes"], repeats=8)
    assert before == RUN


def test_everyone_races_on_the_same_device() -> None:
    race(
        *(entries(["plain"]), TRAINING, LATTICE),
        lanes=2,
        other_lanes=1,
        repeats=1,
        seed=0,
        device="cuda:1",
        on_run=lambda name, rate: None,
    )
    assert PLACES == {"ours": "cuda:1", "plain": "cuda:1", "floor": "cuda:1"}


def test_a_contender_that_fails_is_out_with_the_reason_and_the_others_go_on() -> None:
    found = run(["plain", "vmap"])
    vmap = found.timings[-1]
    assert vmap.absent == "bench stacked: RuntimeError: no batching rule"
    assert vmap.rate is None
    assert [module for module, _ in RUN].count("stacked") == 1
    assert found.timings[1].rate == Spread((2.0,) * 3)
    assert found.timings[0].rate == Spread((8.0, 10.0, 12.0))


def test_what_cannot_run_here_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Entry, "missing", property(lambda self: "no Ray" * (self.name == "ray")))
    found = run(["plain", "ray"])
    assert [timing.absent for timing in found.timings] == ["", "", "no Ray"]
    assert "ray_tune" not in [module for module, _ in RUN]


def test_without_the_engine_there_is_no_race(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(order: Order) -> dict[str, Any]:
        raise HostError(f"bench {order.module}: DeviceError: no room")

    monkeypatch.setattr(Order, "carried_out", fail)
    with pytest.raises(HostError, match="no room"):
        run([])


def test_a_race_is_json_ready() -> None:
    document = run(["plain", "vmap"]).to_dict()
    names = [(c["name"], c["available"], c["reason"]) for c in document["contenders"]]
    assert names[:2] == [(ENGINE, True, None), ("plain", True, None)]
    assert names[2][1:] == (False, "bench stacked: RuntimeError: no batching rule")
    assert document["contenders"][1]["engine_ratio"] == {"median": 5.0, "low": 4.0, "high": 6.0}
    assert document["contenders"][2]["engine_ratio"] is None
    assert document["floor"]["flop_per_second"]["median"] == 1.5e9


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=9))
def test_a_spread_holds_its_median(values: list[float]) -> None:
    found = Spread(tuple(values)).to_dict()
    assert found["low"] <= found["median"] <= found["high"]
    assert Spread(tuple(values)).over(Spread(tuple(values))).values == (1.0,) * len(values)
