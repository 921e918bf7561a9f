"""Lanes are spread over the lattice, and every contender starts and is fed as the engine's lanes are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.lab.bench import floor
from lrwd_sweep.lab.bench.floor import Product, epoch, flop, products
from lrwd_sweep.lab.bench.workload import begin, choose_lanes, data, epochs, initial, module
from lrwd_sweep.science.lattice import Lattice
from tests.lab.bench.made_up import ASKED, TASK


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 80))
def test_lanes_are_distinct_and_of_the_number_asked(rows: int, columns: int, count: int) -> None:
    lattice = Lattice(tuple(2.0**k for k in range(rows)), tuple(2.0**k for k in range(columns)))
    lanes = choose_lanes(lattice, count)
    assert len(set(lanes)) == count
    assert {cell for cell, _ in lanes} <= set(lattice.cells())
    assert {seed for _, seed in lanes} == set(range(-(-count // len(lattice))))


def test_network_starts_with_the_values_of_its_seed() -> None:
    net = module(TASK)
    begin(net, TASK, 3)
    flat = torch.cat([value.detach().flatten() for value in net.parameters()])
    assert torch.equal(flat, torch.cat([value.flatten() for value in initial(TASK, 3)]))
    assert not torch.equal(flat, torch.cat([value.flatten() for value in initial(TASK, 4)]))


def test_epoch_has_every_whole_batch_once() -> None:
    train = data(TASK, torch.device("cpu")).train
    found = [[y for _, y in batches] for batches in epochs(TASK, train, 0)]
    assert [len(batches) for batches in found] == [TASK.steps_per_epoch] * TASK.epochs
    assert {len(y) for batches in found for y in batches} == {TASK.batch_size}
    assert not torch.equal(found[0][0], found[1][0])


def test_products_of_a_perceptron_are_its_matrices() -> None:
    found = products(module(TASK), torch.zeros(64, 1, 8, 8))
    assert found == [Product(128, 64, 64), Product(128, 128, 64), Product(10, 128, 64)]


def test_step_has_three_products_a_layer_except_for_the_data_and_validation_one() -> None:
    step, validation = epoch(TASK)
    weights = (64 * 128, 128 * 128, 128 * 10)
    forward = 2 * 64 * sum(weights)
    assert flop(step) == 3 * forward - 2 * 64 * weights[0]
    assert flop(validation) == 2 * sum(weights) * 697


def test_floor_is_measured_for_stacked_networks_and_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "SECONDS", 0.0)
    threads = torch.get_num_threads()
    for net in ("mlp", "cnn-norm"):
        found = floor.floor(replace(ASKED, task=TASK.changed(net=net)))
        assert found["rate"] > 0
        assert 0 < found["validation"] < found["flop"]
    torch.set_num_threads(threads)
