"""Exponents of the best values along a scale: known answers, published rules, coverage of the intervals."""

from dataclasses import replace

import numpy as np
import pytest

from lrwd_sweep.science import scaling as laws
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.scaling import DECAY, LR, TAU_EPOCHS, TAU_SHARE
from lrwd_sweep.science.surface import Surface
from tests.refusal import assert_raises
from tests.science.separability.surfaces import surface

AXES = np.arange(-11.0, -1.0), np.arange(-14.0, -2.0)
SUPPORTED, CONTRADICTED, _ = laws.Support
INDEPENDENT = DecayRule.INDEPENDENT


def bowl(lr: float, wd: float, seeds: int = 5, noise: float = 0, tilt: float = 0, draw: int = 0) -> Surface:
    rng, (x, y) = np.random.default_rng(draw), np.meshgrid(*AXES, indexing="ij")
    z = 0.02 * (x - lr) ** 2 + 0.02 * (y - wd - tilt * (x - lr)) ** 2
    noisy = z[..., None] + noise * rng.standard_normal((*z.shape, seeds)) + 0.01 * rng.standard_normal(seeds)
    return surface(noisy, *AXES)


def planted(rate: float, decay: float, *, draw: int = 0, tilt: float = 0.0, **how: float) -> laws.PowerLaws:
    """Analyse lattices of 15, 60 and 240 epochs whose best values follow power laws."""
    shift, scales = np.random.default_rng(draw).uniform(-0.5, 0.5, 2), []
    for k, epochs in enumerate((15, 60, 240)):
        best = shift[0] - 6 + 2 * rate * (k - 1), shift[1] - 8 + 2 * decay * (k - 1)
        one = bowl(*best, tilt=tilt, draw=10 * draw + k, **how)  # type: ignore[arg-type]
        scales.append(laws.ScaledLattice(epochs, one, 6 * epochs, 6))
    return laws.scaling(laws.Axis.EPOCHS, scales, resamples=300)


def test_planted_exponents_times_and_costs_are_found_without_noise() -> None:
    for rate, decay in ((0.0, 0.0), (-0.3, -0.5), (0.25, -1.0)):
        found = planted(rate, decay)
        expected = {LR: rate, DECAY: decay, TAU_EPOCHS: -decay, TAU_SHARE: -decay - 1}
        exponents = {name: found.exponents[name].value for name in expected}
        assert exponents == pytest.approx(expected, abs=1e-6), (rate, decay)
        for optimum in found.optima:
            tau = optimum.tau_epochs.value or 0
            assert tau == pytest.approx(1 / (optimum.weight_decay.value or 0) / 6)
            assert optimum.tau_share.value == pytest.approx(tau / optimum.value)
        # in epochs, as a share of the run, 1/√N
        supported = [one.support is SUPPORTED for one in found.rules]
        assert supported == [decay == 0, decay == -1, decay == -0.5], (rate, decay)
    found = planted(0.0, -0.5)  # the best λ moves by two octaves; α stays
    assert found.regret.value == pytest.approx(0.02 * 2**2, abs=0.03)
    costs = {one.rule.name: one.regret.value or 0 for one in found.rules}
    assert costs["λ ∝ 1/√N"] == pytest.approx(0, abs=1e-9)
    assert costs["τ constant in epochs"] == found.regret.value
    assert costs["τ constant as a share of the run"] > 0.04, "two octaves too far"


def of_widths(*best: tuple[float, float], rule: DecayRule = INDEPENDENT, seeds: int = 5) -> laws.PowerLaws:
    lattices = [replace(bowl(*each, seeds=seeds, noise=1e-4), rule=rule) for each in best]
    scales = [laws.ScaledLattice(64 * 4**k, one, 360, 6) for k, one in enumerate(lattices)]
    return laws.scaling(laws.Axis.WIDTH, scales[::-1])


def test_edges_few_seeds_and_rules_of_both_exponents_are_told() -> None:
    edge = of_widths((-6, -2), (-6, -8))
    edges, found = edge.optima[0].edges, edge.exponents[DECAY]
    assert (edges, found.value, found.reason) == ((DECAY,), None, "best weight_decay on the edge at 64")
    assert edge.exponents[LR].value == pytest.approx(0, abs=0.01), "α is inside"
    few = of_widths((-6, -8), (-6, -8), seeds=2).exponents[DECAY]
    assert (round(few.value or 0, 2), few.has_interval) == (0, False)
    assert_raises("at least two different values", of_widths, (-6, -8))
    coupled = of_widths((-6, -8), (-5, -9), rule=DecayRule.COUPLED)
    assert (coupled.exponents[TAU_SHARE].value, coupled.rules) == (None, ())
    for rule, decay in ((INDEPENDENT, -0.5), (DecayRule.LR_SCALED, 0.5)):
        for rate, expected in ((-1.0, SUPPORTED), (0.0, CONTRADICTED)):
            one = of_widths((-5, -9), (-5 + 2 * rate, -9 + 2 * decay), rule=rule).rules[-1]
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
