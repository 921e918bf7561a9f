"""Axes of optimizers that a preset does not name follow from their kin."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.lattice import Lattice, parse_axis
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.axes import default_lattice

LR, WD = parse_axis("2^-11:2^-1", "lr"), parse_axis("0,2^-9:2^1", "wd")  # the middle of LR is 2^-6
STEPS = 360  # √360 = 19: 2^4 is the nearest power of two


def found(optimizer: str, own: str = "adamw", steps: int = STEPS) -> Lattice | None:
    """Return the lattice of `optimizer` if only `own` has axes."""
    axes = {str(Optimizer.parse(own)): Lattice(LR, WD)}
    return default_lattice(axes, Optimizer.parse(optimizer), steps)


def test_its_own_axes_come_first() -> None:
    axes = {"adamw": Lattice(LR, WD), "amsgradw": Lattice((0.5, 1.0), (0.25, 0.5))}
    assert default_lattice(axes, Optimizer.parse("amsgradw"), STEPS) == axes["amsgradw"]


def test_kin_share_a_lattice() -> None:
    for optimizer, own in (
        ("adamw:fixed", "adamw"),
        ("adamw:corrected", "adamw:lr-scaled"),
        ("amsgrad", "adam"),
        ("amsgradw:fixed", "adamw"),
        ("rmspropw", "adamw"),
        ("adamp", "adamw:lr-scaled"),
        ("sgdp", "sgdw:lr-scaled"),
        ("sgdpw", "sgdw"),
    ):
        assert found(optimizer, own) == Lattice(LR, WD), optimizer


def test_another_convention_moves_the_decay_axis_by_whole_octaves() -> None:
    for optimizer, own, octaves in (
        ("adamw:lr-scaled", "adamw", 6),  # w = λ/α
        ("adamw", "adamw:lr-scaled", -6),
        ("adamp", "adamw", 6),
        ("adamw:normalized", "adamw", 4),  # λ_norm = λ√N
        ("adamwr", "adamw", 4),
        ("adamw:corrected:normalized", "adamw", 10),
        ("sgd:normalized", "sgd", 4),
    ):
        assert found(optimizer, own) == Lattice(LR, tuple(value * 2.0**octaves for value in WD)), optimizer


def test_unrelated_optimizers_share_no_axes() -> None:
    for optimizer, own in (("adagradw", "adamw"), ("adam", "adamw"), ("sgd", "sgdw"), ("adamw", "adam")):
        assert found(optimizer, own) is None, optimizer


def test_a_foreign_optimizer_has_none() -> None:
    foreign = Optimizer(None, Optimizer.parse("adamw").rule, "lion")
    assert default_lattice({"adamw": Lattice(LR, WD)}, foreign, STEPS) is None


@given(st.integers(1, 10**7))
def test_normalised_axes_are_those_of_the_steps_to_half_an_octave(steps: int) -> None:
    lattice = found("adamw:normalized", steps=steps)
    assert lattice is not None
    assert abs(math.log2(lattice.weight_decay[-1] / WD[-1] / math.sqrt(steps))) <= 0.5 + 1e-9
