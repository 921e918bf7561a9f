"""In equilibrium a scale-invariant tensor turns as far as the formula says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lrwd_sweep.lab.evidence import Section
from lrwd_sweep.lab.verify import rotation
from lrwd_sweep.lab.verify.rotation import EQUILIBRIA, Equilibrium

CPU = torch.device("cpu")


def shown(monkeypatch: pytest.MonkeyPatch, case: Equilibrium, device: torch.device = CPU) -> Section:
    monkeypatch.setattr(rotation, "EQUILIBRIA", (case,))
    return rotation.equilibrium_rotation(device)


@pytest.mark.parametrize("case", EQUILIBRIA, ids=lambda case: case.optimizer)
def test_three_digits_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, case: Equilibrium, device: torch.device
) -> None:
    section = shown(monkeypatch, case, device)
    assert section.failures == []
    assert len(section.checks) == len(case.cells)


def test_the_rotation_of_sgdw_is_that_of_the_science_whatever_the_rate() -> None:
    case = EQUILIBRIA[0]
    assert [alpha for alpha, _ in case.cells] == [0.01, 0.04, 0.16]
    assert {round(case.angle(*cell), 5) for cell in case.cells} == {0.01026}


@pytest.mark.usefixtures("_decay_too_strong")
def test_a_hundredth_more_decay_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, replace(EQUILIBRIA[0], cells=((0.01, 1e-3),))).failures
