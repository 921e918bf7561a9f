"""The floor counts what a network multiplies, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lrwd_sweep.lab.bench import floor
from lrwd_sweep.lab.bench.floor import Epoch, Product, measure, products
from lrwd_sweep.lab.bench.order import Order
from lrwd_sweep.lab.bench.task import module
from tests.lab.bench.made_up import LATTICE, TRAINING


def test_a_perceptrons_products_are_its_matrices() -> None:
    found = products(module(TRAINING), torch.zeros(64, 1, 8, 8))
    assert found == [Product(128, 64, 64), Product(128, 128, 64), Product(10, 128, 64)]


def test_a_convolutions_columns_are_images_times_pixels_and_groups_stand_side_by_side() -> None:
    net = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Conv2d(6, 8, 1, groups=2))
    assert products(net, torch.zeros(5, 4, 8, 8)) == [Product(6, 36, 5 * 16), Product(4, 3, 2 * 5 * 16)]


def test_training_multiplies_three_times_but_for_the_data_and_validation_once() -> None:
    epoch = Epoch.of(TRAINING)
    weights = (64 * 128, 128 * 128, 128 * 10)
    forward = 2 * 64 * sum(weights)
    assert epoch.validation_flop == pytest.approx(2 * sum(weights) * 697 / epoch.steps)
    assert epoch.flop == pytest.approx(2 * forward + forward - 2 * 64 * weights[0] + epoch.validation_flop)


def test_it_is_measured_for_stacked_networks_and_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "SECONDS", 0.0)
    for net in ("mlp", "cnn-norm"):
        found = measure(Order("floor", TRAINING.changed(net=net), LATTICE))
        assert found["rate"] > 0
        assert 0 < found["validation"] < found["flop"]
