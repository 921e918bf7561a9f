"""Exponents of the best values along a scale: known answers, published rules, coverage of the intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.scaling import (
    DECAY,
    LR,
    TAU_EPOCHS,
    TAU_SHARE,
    Axis,
    PowerLaws,
    ScaledLattice,
    Support,
    scaling,
)
from lrwd_sweep.science.surface import Surface
from tests.science.separability.surfaces import surface

LENGTHS = (15, 60, 240)  # epochs, of 6 steps; two octaves apart
AXES = np.arange(-11.0, -1.0), np.arange(-14.0, -2.0)


def bowl(
    lr: float, decay: float, *, seeds: int = 5, noise: float = 0.0, tilt: float = 0.0, draw: int = 0
) -> Surface:
    """Make a bowl whose least value is at log₂ α = `lr`, log₂ λ = `decay`."""
    rng, (x, y) = np.random.default_rng(draw), np.meshgrid(*AXES, indexing="ij")
    z = 0.02 * (x - lr) ** 2 + 0.02 * (y - decay - tilt * (x - lr)) ** 2
    noisy = z[..., None] + noise * rng.standard_normal((*z.shape, seeds)) + 0.01 * rng.standard_normal(seeds)
    return surface(noisy, *AXES)


def planted(
    rate: float, decay: float, *, seeds: int = 5, noise: float = 0.0, tilt: float = 0.0, draw: int = 0
) -> PowerLaws:
    """Analyse three lattices whose best values follow power laws of the number of epochs."""
    shift = np.random.default_rng(draw).uniform(-0.5, 0.5, 2)
    scales = [
        ScaledLattice(
            epochs,
            bowl(
                *(shift[0] - 6 + 2 * rate * (k - 1), shift[1] - 8 + 2 * decay * (k - 1)),
                seeds=seeds, noise=noise, tilt=tilt, draw=10 * draw + k,
            ),
            6 * epochs,
            6,
        )
        for k, epochs in enumerate(LENGTHS)
    ]  # fmt: skip
    return scaling(Axis.EPOCHS, scales, resamples=300)


def test_planted_exponents_and_times_are_found_without_noise() -> None:
    for rate, decay in ((0.0, 0.0), (-0.3, -0.5), (0.25, -1.0)):
        found = planted(rate, decay)
        expected = {LR: rate, DECAY: decay, TAU_EPOCHS: -decay, TAU_SHARE: -decay - 1}
        for name, exponent in expected.items():
            assert found.exponents[name].value == pytest.approx(exponent, abs=1e-6), (rate, decay, name)
        for optimum in found.optima:
            assert optimum.tau_epochs.value == pytest.approx(1 / optimum.weight_decay.value / 6)  # type: ignore[operator]
            assert optimum.tau_share.value == pytest.approx(optimum.tau_epochs.value / optimum.value)  # type: ignore[operator]
        # in epochs, as a share of the run, 1/√N
        supported = [one.support is Support.SUPPORTED for one in found.rules]
        assert supported == [decay == 0, decay == -1, decay == -0.5], (rate, decay)


def test_cost_of_carrying_a_cell_is_that_of_the_bowl() -> None:
    found = planted(0.0, -0.5)  # the best λ moves by two octaves; α stays
    assert found.regret.value == pytest.approx(0.02 * 2**2, abs=0.03)
    costs = {one.rule.name: one.regret.value for one in found.rules}
    assert costs["λ ∝ 1/√N"] == pytest.approx(0, abs=1e-9)
    assert costs["τ constant in epochs"] == found.regret.value
    worst = costs["τ constant as a share of the run"]
    assert worst is not None
    assert worst > 0.04, "two octaves too far"


def test_conventions_give_the_same_time_and_coupled_decay_has_none() -> None:
    found = {}
    for rule, tilt in ((DecayRule.INDEPENDENT, 0.0), (DecayRule.LR_SCALED, -1.0), (DecayRule.COUPLED, 0.0)):
        lattices = [bowl(-6, -11 + 6 * bool(tilt) - k, tilt=tilt) for k in (0, 1)]
        scales = [
            ScaledLattice(15 * 4**k, replace(each, rule=rule), 90 * 4**k, 6)
            for k, each in enumerate(lattices)
        ]
        found[rule] = scaling(Axis.EPOCHS, scales[::-1])
        assert [optimum.value for optimum in found[rule].optima] == [15, 60], "ascending"
    same, scaled, coupled = found.values()
    assert same.exponents[DECAY].value == pytest.approx(-0.5)
    assert scaled.exponents[DECAY].value == pytest.approx(-0.5)
    for a, b in zip(same.optima, scaled.optima, strict=True):
        assert a.tau_share.value == pytest.approx(b.tau_share.value)
    assert coupled.exponents[DECAY].value == pytest.approx(-0.5), "of λ′"
    assert coupled.exponents[TAU_SHARE].value is None
    assert not coupled.rules


def test_edges_and_unlike_lattices_are_told() -> None:
    edge = scaling(
        Axis.WIDTH, [ScaledLattice(64, bowl(-6, -2), 90, 6), ScaledLattice(128, bowl(-6, -8), 90, 6)]
    )
    assert edge.optima[0].edges == (DECAY,)
    assert edge.exponents[DECAY].value is None
    assert edge.exponents[DECAY].reason == "best weight_decay on the edge at 64"
    assert edge.exponents[LR].value == pytest.approx(0, abs=1e-9), "α is inside"
    few = scaling(
        Axis.WIDTH,
        [ScaledLattice(64, bowl(-6, -8, seeds=2), 90, 6), ScaledLattice(128, bowl(-6, -8, seeds=2), 90, 6)],
    )
    assert few.exponents[DECAY].value == pytest.approx(0, abs=0.01)
    assert not few.exponents[DECAY].has_interval
    with pytest.raises(UsageError, match="at least two different values"):
        scaling(Axis.WIDTH, [ScaledLattice(64, bowl(-6, -8), 90, 6)])


def test_a_rule_of_both_exponents_needs_both() -> None:
    for rule, tilt, decay in ((DecayRule.INDEPENDENT, 0.0, -0.5), (DecayRule.LR_SCALED, 0.0, 0.5)):
        for rate, expected in ((-1.0, Support.SUPPORTED), (0.0, Support.CONTRADICTED)):
            scales = [
                ScaledLattice(
                    64 * 4**k,
                    replace(bowl(-5 + 2 * rate * k, -9 + 2 * decay * k, tilt=tilt, noise=1e-4), rule=rule),
                    360, 6,
                )
                for k in (0, 1)
            ]  # fmt: skip
            one = scaling(Axis.WIDTH, scales).rules[-1]
            assert (one.rule.source, one.support) == ("Fan et al. 2025", expected), (rule, rate)
            assert (one.regret.value == pytest.approx(0, abs=1e-3)) == (rate == -1), (rule, rate)


@pytest.mark.slow
def test_intervals_of_planted_exponents_cover() -> None:
    for seeds, noise, tilt in ((3, 0.03, 0.0), (3, 0.06, -0.5), (5, 0.03, -0.5), (8, 0.06, 0.0)):
        covered = dict.fromkeys((LR, DECAY), 0)
        for draw in range(200):
            found = planted(-0.3, -0.5, seeds=seeds, noise=noise, tilt=tilt, draw=draw)
            for name, exponent in ((LR, -0.3), (DECAY, -0.5)):
                estimate = found.exponents[name]
                covered[name] += estimate.has_interval and not estimate.excludes(exponent)
        assert min(covered.values()) >= 0.85 * 200, (seeds, noise, tilt, covered)
