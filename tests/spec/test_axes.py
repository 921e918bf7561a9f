"""Axes of optimizers that a preset does not name follow from their kin."""

from __future__ import annotations

from lrwd_sweep.science.lattice import Lattice, parse_axis
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.axes import default_lattice

LR, WD = parse_axis("2^-11:2^-1", "lr"), parse_axis("0,2^-9:2^1", "wd")  # the middle of LR is 2^-6
STEPS = 360  # √360 = 19: 2^4 is the nearest power of two


def found(optimizer: str, own: str = "adamw", steps: int = STEPS) -> Lattice | None:
    """Return the lattice of `optimizer` if only `own` has axes."""
    axes = {str(Optimizer.parse(own)): Lattice(LR, WD)}
    return default_lattice(axes, Optimizer.parse(optimizer), steps)


def test_an_optimizer_takes_its_own_axes_or_those_of_its_kin_by_whole_octaves() -> None:
    axes = {"adamw": Lattice(LR, WD), "amsgradw": Lattice((0.5, 1.0), (0.25, 0.5))}
    assert default_lattice(axes, Optimizer.parse("amsgradw"), STEPS) == axes["amsgradw"]
    for optimizer, own, octaves in (
        *(("adamw:fixed", "adamw", 0), ("adamw:corrected", "adamw:lr-scaled", 0), ("amsgrad", "adam", 0)),
        *(("rmspropw", "adamw", 0), ("adamp", "adamw:lr-scaled", 0), ("sgdp", "sgdw:lr-scaled", 0)),
        *(("adamw:lr-scaled", "adamw", 6), ("adamw", "adamw:lr-scaled", -6)),  # w = λ/α
        *(("adamp", "adamw", 6), ("adamwr", "adamw", 4)),
        *(("adamw:normalized", "adamw", 4), ("sgd:normalized", "sgd", 4)),  # λ_norm = λ√N
        ("adamw:corrected:normalized", "adamw", 10),
    ):
        assert found(optimizer, own) == Lattice(LR, tuple(value * 2.0**octaves for value in WD)), optimizer


def test_unrelated_and_foreign_optimizers_have_no_axes() -> None:
    for optimizer, own in (("adagradw", "adamw"), ("adam", "adamw"), ("sgd", "sgdw"), ("adamw", "adam")):
        assert found(optimizer, own) is None, optimizer
    foreign = Optimizer(None, Optimizer.parse("adamw").rule, "lion")
    assert default_lattice({"adamw": Lattice(LR, WD)}, foreign, STEPS) is None
