"""Simulated error rates: false verdicts on noise, and how often intervals hold the truth.

Slow: about three minutes. The seeds of all draws are fixed, so that the figures are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from lrwd_sweep.science.separability import Estimate, Verdict, analyse
from lrwd_sweep.science.separability.analysis import Analysis, Settings
from lrwd_sweep.science.surface import Float
from tests.science.separability.surfaces import NO_EFFECT, RIDGE, centred, noisy, regret, surface

pytestmark = pytest.mark.slow

SEEDS = (3, 5, 10)
SETTINGS = Settings(resamples=300)
UNEVEN_LR = np.array([-5.0, -4.2, -3.0, -2.4, -1.1, 0.0, 0.7, 2.0, 2.8, 4.1, 5.0])
UNEVEN_DECAY = np.array([-6.5, -5.4, -4.5, -3.2, -2.3, -1.0, -0.2, 1.1, 2.0, 3.2, 4.1, 5.3, 6.4])


@dataclass(frozen=True)
class Case:
    """A surface with noise, over axes of its own."""

    name: str
    draw: Callable[[np.random.Generator, int], Float]  # (rng, R) → (I, J, R)
    log_lr: Float
    log_decay: Float
    truth: float
    windowed: bool = False  # the ridge leaves the axis
    least: tuple[float, float, float] = (0.83, 0.83, 0.83)  # coverage at 3, 5 and 10 seeds


def straight(
    name: str,
    truth: float,
    log_lr: Float,
    log_decay: Float,
    *,
    flanks: Callable[[Float], Float] = np.square,
    out: float = 0.0,
    noise: float = 0.5,
    windowed: bool = False,
    least: tuple[float, float, float] = (0.83, 0.83, 0.83),
) -> Case:
    """A straight valley with white noise and seed offsets; a share `out` of its cells diverged."""
    a, b = np.meshgrid(log_lr, log_decay, indexing="ij")
    y = 0.1 * a**2 + 0.3 * flanks(b - truth * a)
    lost = np.random.default_rng(7).random(y.shape) < out

    def draw(rng: np.random.Generator, seeds: int) -> Float:
        found = y[..., None] + noise * rng.standard_normal((*y.shape, seeds)) + rng.standard_normal(seeds)
        return np.where(lost[..., None], np.nan, found)

    return Case(name, draw, log_lr, log_decay, truth, windowed, least)


def kink(x: Float) -> Float:
    """Unequal straight flanks."""
    return np.where(x > 0, 2 * x, -x)


# Parameters of `like`, fitted to the means and residuals of 8 seeds of each default lattice: the valley's
# l* = c₀ + c₁a + c₂a², log heights of the left flank and log slopes of the right one as parabolas in a, its
# quadratic part, the floor, a wall at the lowest α, the kink's width; σ₀, its power of y, and the share of
# the variance at low λ that all cells of a row share. RMS misfit in the basin: 0.0019 to 0.005 of 0.12.
LIKE = {
    "adam": (
        ((-2.2, -0.95, 0.04), (-4.69, -0.0474, 0.084), 0.529, (-5.39, 0.232, -0.00405), -2.37),
        ((0.115, -0.00233, 0.000191), 0.085, 0.15),
        (0.0045, 2.2, 0.6),
    ),
    "adamw": (
        ((-2.22, -0.069, -0.00116), (-3.76, -0.0832, 0.0521), 0.925, (-4.94, -0.0248, 0.00371), -5.47),
        ((0.102, 0.000589, -0.000217), 0.0, 0.86),
        (0.006, 0.2, 1.0),
    ),
    "sgd": (
        ((0.0654, -0.993, 0.0288), (-3.96, -0.137, 0.033), -0.551, (-20.1, 0.0839, -0.00266), 13.9),
        ((0.116, -0.000805, 0.000342), 0.03, 0.15),
        (0.009, 2.0, 0.95),
    ),
    "sgdw": (
        ((-0.396, -0.0324, 0.0129), (-3.85, 0.0569, 0.0569), -0.519, (-5.18, 0.0143, -0.00768), -2.97),
        ((0.111, -0.000504, 0.000223), 0.0, 0.15),
        (0.0062, 0.0, 1.0),
    ),
}


def like(name: str, step: float = 1.0, least: tuple[float, float, float] = (0.83, 0.83, 0.83)) -> Case:
    """A surface shaped like a default lattice; the truth is the estimator's own limit without noise."""
    (valley, left, rate, right, bend), (floor, wall, width), (sigma0, power, shared) = LIKE[name]
    a, b = np.meshgrid(centred(11), centred(11), indexing="ij")

    def parabola(p: tuple[float, float, float]) -> Float:
        return np.asarray(p[0] + p[1] * a + p[2] * a**2)

    u = b - parabola(valley)
    below, above = width * np.logaddexp(0, -u / width), width * np.logaddexp(0, u / width)
    y = parabola(floor) + wall * np.exp(-2 * (a + 5))
    y = y + np.exp(parabola(left)) * (1 - np.exp(-np.exp(rate) * below))
    y = y + np.exp(parabola(right)) * (above + np.exp(bend) * above**2)
    sigma, common = sigma0 * (y / 0.12) ** power, shared / (1 + np.exp((u + 1) / 0.7))

    def draw(rng: np.random.Generator, seeds: int) -> Float:
        row, cell = rng.standard_normal((11, 1, seeds)), rng.standard_normal((11, 11, seeds))
        noise = np.sqrt(common)[..., None] * row + np.sqrt(1 - common)[..., None] * cell
        return np.asarray(y[..., None] + sigma[..., None] * noise + 0.004 * rng.standard_normal(seeds))

    log_decay = centred(11, step)
    limit = Analysis.of(surface(y, centred(11), log_decay), SETTINGS).ridge_slope.value
    assert limit is not None
    return Case(f"like {name}", draw, centred(11), log_decay, limit, least=least)


def cases() -> list[Case]:
    """The surfaces whose slope is known.

    The weights c̄² are held fixed in resamples. On a ridge that bends, such as adamw's, what the seeds do to
    them is missing in the interval, which covers 0.84, 0.84 and 0.76 with 3, 5 and 10 seeds. Weights found
    anew in each resample cover 0.93, but leave 25 of 56 verdicts on five real seeds undetermined, not 8. A
    ridge that ends in the lattice's corners covers less with more noise, 0.79 with 3 seeds and noise 0.5.
    """
    axis, wide = centred(11), centred(15)
    bowls = [straight(f"bowl {s:g}", s, axis, axis) for s in (0.0, -0.5)]
    kinks = [straight(f"kink {s:g}", s, axis, wide, flanks=kink, noise=0.3) for s in (0.0, -1.0)]
    lost = [straight(f"10 % out {s:g}", s, axis, wide, out=0.1) for s in (0.0, -0.5, -1.0)]
    ragged = [straight(f"ragged {s:g}", s, UNEVEN_LR, UNEVEN_DECAY) for s in (0.0, -0.5)]
    seven = [
        straight("7 columns -1", -1.0, axis, centred(7), noise=noise, windowed=True, least=(0.8, 0.8, 0.8))
        for noise in (0.3, 0.6)
    ]
    lattices = [
        like("adam", 1.5),
        like("adamw", least=(0.83, 0.83, 0.75)),
        like("sgd"),
        like("sgdw"),
    ]
    bowls += [straight("bowl -1", -1.0, axis, wide), straight("corners -1", -1.0, axis, axis, noise=0.3)]
    return [*bowls, *kinks, *lost, *ragged, *seven, *lattices]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_slopes_interval_holds_the_truth_in_83_to_97_percent(case: Case) -> None:
    for seeds, least in zip(SEEDS, case.least, strict=True):
        runs = 300
        found: list[Analysis] = []
        for stream in range(runs):
            y = case.draw(np.random.default_rng(stream), seeds)
            found.append(Analysis.of(surface(y, case.log_lr, case.log_decay), SETTINGS))
        known = [each.ridge_slope for each in found if each.ridge_slope.has_interval]
        held = sum(not slope.excludes(case.truth) for slope in known) / len(known)
        flagged = sum(each.windowed for each in found) / runs
        assert least <= held <= 0.97, (case.name, seeds)
        assert len(known) > 0.75 * runs, (case.name, seeds)
        if case.windowed:
            assert flagged >= 0.95, (case.name, seeds)


@pytest.mark.parametrize("draw", NO_EFFECT, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("seeds", SEEDS)
def test_false_verdicts_on_noise_are_one_in_a_hundred_at_most(
    draw: Callable[[np.random.Generator, int], Float], seeds: int
) -> None:
    runs = 600
    verdicts = [
        Analysis.of(surface(draw(np.random.default_rng(stream), seeds)), SETTINGS).verdict
        for stream in range(runs)
    ]
    false = sum(verdict is not Verdict.UNDETERMINED for verdict in verdicts)
    assert false <= 0.01 * runs


def test_noise_passes_the_test_in_one_or_two_of_a_hundred_lattices() -> None:
    for draw in (NO_EFFECT[0], *NO_EFFECT[2:]):
        tests = [
            Analysis.of(surface(draw(np.random.default_rng(stream), 3)), Settings(resamples=0)).noise
            for stream in range(1000)
        ]
        passed = [(test.f >= test.needed, (test.f_of_ranks or 0) >= test.needed) for test in tests if test]
        assert np.all(np.mean(passed, axis=0) <= 0.02), draw.__name__
        assert np.any(passed, axis=1).mean() <= 0.03, draw.__name__


@pytest.mark.parametrize("seeds", [3, 4, 5, 8])
def test_transfer_regrets_interval_holds_the_truth_where_the_best_decays_are_beyond_doubt(seeds: int) -> None:
    y = RIDGE[3:8, 3:8]
    found: list[Estimate] = [
        regret(analyse(surface(noisy(y, seeds, 0.05, stream))), 1).estimate for stream in range(1000)
    ]
    held = np.mean([estimate.has_interval and not estimate.excludes(1.0) for estimate in found])
    assert 0.87 <= held <= 0.93


@pytest.mark.parametrize("seeds", [1, 2])
def test_interval_from_rows_holds_the_truth_of_one_and_two_seeds(seeds: int) -> None:
    for case in cases():
        found = [
            Analysis.of(
                surface(case.draw(np.random.default_rng(stream), seeds), case.log_lr, case.log_decay),
                SETTINGS,
            ).slope_from_rows()
            for stream in range(150)
        ]
        known = [slope for slope in found if slope.has_interval]
        held = sum(not slope.excludes(case.truth) for slope in known) / len(known)
        assert held >= 0.83, case.name
