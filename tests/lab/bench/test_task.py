"""Lanes are spread over the lattice, and everyone begins and is fed as the engine's lanes are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.lab.bench.task import (
    Curves,
    Lane,
    Outcome,
    begin,
    choose_lanes,
    choose_threads,
    data,
    epochs,
    initial,
    module,
)
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.spec.task import Task
from tests.lab.bench.made_up import LATTICE, TRAINING


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 80))
def test_lanes_are_distinct_and_as_many_as_asked(rows: int, columns: int, count: int) -> None:
    lattice = Lattice(tuple(2.0**k for k in range(rows)), tuple(2.0**k for k in range(columns)))
    lanes = choose_lanes(lattice, count)
    assert len(set(lanes)) == count
    assert {cell for cell, _ in lanes} <= set(lattice.cells())
    assert {seed for _, seed in lanes} == set(range(-(-count // len(lattice))))


def test_few_lanes_are_spread_evenly() -> None:
    assert [cell.lr for cell, _ in choose_lanes(LATTICE, 3)] == list(LATTICE.lr)


def test_a_network_begins_with_the_seeds_values() -> None:
    net = module(TRAINING)
    begin(net, TRAINING, 3)
    flat = torch.cat([value.detach().flatten() for value in net.parameters()])
    assert torch.equal(flat, torch.cat([value.flatten() for value in initial(TRAINING, 3)]))
    assert not torch.equal(flat, torch.cat([value.flatten() for value in initial(TRAINING, 4)]))


def test_an_epoch_has_every_whole_batch_once() -> None:
    train = data(TRAINING, torch.device("cpu")).train
    found = [[y for _, y in batches] for batches in epochs(TRAINING, train, 0)]
    assert [len(batches) for batches in found] == [TRAINING.steps_per_epoch] * TRAINING.epochs
    assert {len(y) for batches in found for y in batches} == {TRAINING.batch_size}
    assert not torch.equal(found[0][0], found[1][0])


@pytest.mark.parametrize("best", [1, 2])
def test_threads_are_one_or_all_whichever_is_faster(monkeypatch: pytest.MonkeyPatch, best: int) -> None:
    def pretend(*_: object) -> Outcome:
        return Outcome({}, 1.0 if torch.get_num_threads() == best else 2.0)

    monkeypatch.setattr(Outcome, "timed", pretend)
    torch.set_num_threads(2)
    choose_threads(lambda task, lanes: {}, TRAINING, [])
    assert torch.get_num_threads() == best


def test_the_clock_runs_for_the_lanes_and_not_for_the_warm_up() -> None:
    asked: list[int] = []

    def train(task: Task, lanes: Sequence[Lane]) -> Curves:
        asked.append(task.epochs)
        return {lane: [float(task.epochs)] for lane in lanes}

    lanes = choose_lanes(LATTICE, 2)
    outcome = Outcome.timed(train, TRAINING, lanes)
    assert asked == [1, TRAINING.epochs]
    assert outcome.curves == {lane: [float(TRAINING.epochs)] for lane in lanes}
