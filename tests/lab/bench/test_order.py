"""An order reaches a process of its own, and comes back as what was measured or as one line."""

from __future__ import annotations

import pytest

from lrwd_sweep.errors import HostError, UsageError
from lrwd_sweep.lab.bench.order import Order
from tests.lab.bench.made_up import LATTICE, TRAINING


def test_an_order_survives_the_command_line() -> None:
    order = Order("plain", TRAINING.changed(net="cnn"), LATTICE, (3, 5), "cuda:1")
    assert Order.from_json(order.to_json()) == order


def test_a_contender_is_timed_in_a_process_of_its_own() -> None:
    found = Order("plain", TRAINING.changed(epochs=1), LATTICE, (1,)).carried_out()
    assert found.keys() == {"rate"}
    assert found["rate"] > 0


def test_what_went_wrong_there_is_one_line() -> None:
    with pytest.raises(HostError, match=r"^bench nobody: ModuleNotFoundError: [^\n]*nobody'$"):
        Order("nobody", TRAINING, LATTICE).carried_out()


def test_what_the_command_line_asks_wrongly_is_said_as_it_is_elsewhere() -> None:
    task = TRAINING.changed(net="torchvision:squeezenet1_1")
    with pytest.raises(UsageError, match=r"^net='torchvision:squeezenet1_1' does not take images of [^\n]*$"):
        Order("floor", task, LATTICE).carried_out()
