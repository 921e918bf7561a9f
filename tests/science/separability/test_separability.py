"""Separability: known answers, laws, basin, baseline and seeds, and surfaces that have no answer."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from math import isfinite, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.separability import Estimate, Verdict, analyse
from lrwd_sweep.science.surface import CellStatus, Float, Surface
from tests.science.separability import surfaces
from tests.science.separability.surfaces import BOWL, RIDGE, A, L, noisy, regret, repeated, surface, value

INDEPENDENT = L + A  # log2 λ = log2 w + log2 α, on a lattice of w
ADDITIVE = 0.1 * A**4 + np.exp(0.4 * INDEPENDENT) + np.exp(-0.9 * INDEPENDENT)


def every(kind: type, thing: object) -> Iterator[Any]:
    """Iterate over the values of a kind in a result, however deep."""
    if isinstance(thing, kind):
        yield thing
    elif is_dataclass(thing):
        yield from every(kind, [getattr(thing, field.name) for field in fields(thing)])
    elif isinstance(thing, dict | tuple | list):
        for each in thing.values() if isinstance(thing, dict) else thing:
            yield from every(kind, each)


def test_known_answers_of_slope_and_shape() -> None:
    zero = dict.fromkeys(("ridge_slope", "reverse_slope", "curvature_coupling", "interaction_share"), 0.0)
    in_w = surface(repeated(ADDITIVE), rule=DecayRule.LR_SCALED)
    product: dict[str, float] = {"ridge_slope": -1, "reverse_slope": -1, "curvature_coupling": 1}
    cases: list[tuple[Surface, Verdict, dict[str, float], list[float]]] = [
        (surface(repeated(BOWL)), Verdict.SEPARABLE, zero, [0, 0, 0]),
        (surface(repeated(RIDGE)), Verdict.PRODUCT_COUPLED, product | {"top10_tilt": -1}, [1, 4]),
        (in_w, Verdict.PRODUCT_COUPLED, {"ridge_slope": -1}, []),
        (surface(repeated(np.minimum(BOWL, 12.0)), cap=12.0), Verdict.SEPARABLE, zero, []),
    ]
    for case, (one, verdict, expected, regrets) in enumerate(cases):
        found = analyse(one)
        assert found.verdict is found.point_verdict is verdict, case
        measured = {measure: value(getattr(found, measure)) for measure in expected}
        assert measured == pytest.approx(expected, abs=1e-9), case
        costs = [value(regret(found, octaves + 1).estimate) for octaves in range(len(regrets))]
        assert costs == pytest.approx(regrets, abs=1e-12), case
    bowl = analyse(cases[0][0])
    assert (bowl.reason, bowl.ridge_rows, len(bowl.transfer_regret)) == ("", 11, 3)
    assert "ridge" in analyse(cases[1][0]).curvature_coupling.reason
    assert not analyse(cases[3][0]).basin[0, 0], "a capped cell is out"
    slopes = {DecayRule.INDEPENDENT: (-1, -2), DecayRule.LR_SCALED: (0, -1)}
    for rule in DecayRule:
        by_convention = analyse(surface(repeated(RIDGE), rule=rule)).slope_by_convention
        assert tuple(by_convention.values()) == pytest.approx(slopes.get(rule, (None, None))), rule


def test_interaction_share_is_that_of_the_row_and_column_fit_without_noise() -> None:
    y = BOWL + A * L
    found = analyse(surface(y), basin_quantile=1)
    assert value(found.interaction_share) == pytest.approx(((A * L) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    rows = np.random.default_rng(0).standard_normal((11, 1, 3))
    rows -= rows.mean(axis=2, keepdims=True)
    share = analyse(surface(noisy(0.05 * np.abs(L), 3, 0.01) + rows)).interaction_share  # means spread little
    assert (share.value, "residual variance" in share.reason) == (None, True)
    draws = [noisy(BOWL, 3, 1.0, stream) for stream in range(30)]
    corrected = [value(analyse(surface(y), resamples=0).interaction_share) for y in draws]
    raw = [value(analyse(surface(y.mean(axis=2)), resamples=0).interaction_share) for y in draws]
    assert abs(np.mean(corrected)) < 0.01
    assert np.mean(raw) > 0.03


def test_best_cell_on_the_border_names_the_side() -> None:
    for side, slant in ("lr:low", A), ("lr:high", -A), ("weight_decay:low", L), ("weight_decay:high", -L):
        tilted = analyse(surface(repeated(BOWL + 100 * slant)))
        assert (tilted.on_edge, side in tilted.basin_on_edge) == ((side,), True)
        assert "edge" in tilted.reason


def test_rows_weigh_in_the_slopes_by_their_smoothed_squared_curvature() -> None:
    rng = np.random.default_rng(0)
    position, curvature = rng.uniform(-2, 2, 11), rng.uniform(0.1, 2, 11)
    y = curvature[:, None] * (L - position[:, None]) ** 2
    for rest in (np.arange(11), np.delete(np.arange(11), 4)):
        if len(rest) == 10:
            y[4] = np.arange(11.0)  # falls to the lowest λ: lends no curvature and has no weight
        weights = [np.median([curvature[k] for k in range(i - 2, i + 3) if k in rest]) for i in rest]
        slope = np.polyfit(A[rest, 0], position[rest], 1, w=np.asarray(weights))[0]
        found = analyse(surface(y), basin_quantile=1)
        assert [row for row, _ in found.ridge] == list(rest)
        assert [l_star for _, l_star in found.ridge] == pytest.approx(position[rest])
        assert value(found.ridge_slope) == pytest.approx(slope)
        assert value(analyse(surface(y.T), basin_quantile=1).reverse_slope) == pytest.approx(slope)
    steep = np.eye(11)[10]  # one steep row does not outvote the others
    found = analyse(surface((1 + 99 * steep[:, None]) * (L - 4 * steep[:, None]) ** 2), basin_quantile=1)
    assert value(found.ridge_slope) == pytest.approx(np.polyfit(A[:, 0], 4 * steep, 1)[0])


def test_basin_is_the_better_half_or_what_was_asked_and_a_change_of_verdict_is_said() -> None:
    found, limit = analyse(surface(BOWL)), np.sort(BOWL, axis=None)[60]
    assert np.array_equal(found.basin, limit >= BOWL)
    assert found.basin_tolerance == pytest.approx(limit)
    assert [other.basin for other in found.robustness] == [0.25, 1.0]
    assert analyse(surface(noisy(BOWL, 1, 0.1)), basin_quantile=0.01).basin.sum() == 10
    found = analyse(surface(BOWL + 3), basin_tolerance=2.0)
    assert (np.array_equal(found.basin, BOWL <= 2.0), found.basin_tolerance) == (True, 2.0)
    bent = (L - 2 * np.sign(A) * np.maximum(np.abs(A) - 2, 0)) ** 2 + A**2  # separable only near the optimum
    found = analyse(surface(repeated(bent)), basin_quantile=0.2)
    verdicts = [found.verdict, *(other.verdict for other in found.robustness)]
    assert verdicts == [Verdict.SEPARABLE, Verdict.SEPARABLE, Verdict.COUPLED]
    assert "with the basin at 0.4 the verdict is coupled" in found.reason


def test_baseline_column_shifts_the_best_cells_and_has_a_gain() -> None:
    y = noisy(BOWL, 5, 0.01)
    bare = analyse(surface(y))
    assert [y.mean(axis=2)[cell] for cell in bare.top10] == sorted(y.mean(axis=2).ravel())[:10]
    assert value(bare.top10_tilt) == pytest.approx(np.corrcoef(np.array(bare.top10).T)[0, 1])
    assert "no column" in bare.baseline_gain.reason
    for gain in (2.0, -2.0):
        column = noisy(np.full((11, 1), 0.0), 5, 0.01, stream=1, offset=0)[:, 0]
        based = analyse(surface(y, baseline=column + y.min(axis=(0, 1)) + gain))
        assert value(based.baseline_gain) == pytest.approx(gain, abs=0.1)
        assert based.baseline_gain.excludes(0), "paired: the seeds differ by more"
        for name in ("ridge_slope", "transfer_regret", "sequential_regret", "on_edge"):
            assert getattr(based, name) == getattr(bare, name), name
        assert np.array_equal(based.basin, np.pad(bare.basin, ((0, 0), (1, 0))))
        for name in ("top10", "best_by_row"):
            assert getattr(based, name) == tuple((i, j + 1) for i, j in getattr(bare, name)), name


def test_verdict_depends_on_seeds_and_interval_not_on_offsets_or_chance() -> None:
    for seeds in (1, 2):
        found = analyse(surface(repeated(RIDGE, seeds)))
        assert (found.verdict, found.point_verdict) == (Verdict.UNDETERMINED, Verdict.PRODUCT_COUPLED)
        assert f"too few seeds for an interval: {seeds}" in found.reason
    y, axis = noisy(0.1 * A**2 + 0.5 * (L + 0.3 * A) ** 2, 3, 0.5, offset=0), surfaces.centred(11)
    calm, offset = analyse(surface(y)), surface(y + np.array([100, 0, -50]))
    for one in (offset, surface(1e-3 * y[..., ::-1] + 7, axis + 3, axis - 5)):  # another unit, axes, order
        other = analyse(one)
        assert other.verdict is calm.verdict
        for name in ("ridge_slope", "slope_from_rows", "curvature_coupling", "interaction_share", "bow"):
            here, there = getattr(calm, name), getattr(other, name)
            assert (there.value, there.low) == pytest.approx((here.value, here.low), rel=1e-5), name


def pairs(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(st.floats(low, high), st.floats(low, high))


@given(st.floats(-0.7, 0.7), st.floats(1.5, 20), pairs(0.3, 1.5), st.floats(0, 0.4), pairs(-0.5, 0.5))
def test_quadratic_has_the_slopes_and_coupling_of_its_hessian(
    angle: float, steep: float, steps: tuple[float, float], uneven: float, centre: tuple[float, float]
) -> None:
    c, s, wobble = np.cos(angle), np.sin(angle), uneven * np.sin(9.0 * np.arange(13))
    log_lr, log_decay = steps[0] * (A[:, 0] + wobble[:11]), steps[1] * (surfaces.centred(13) + wobble)
    a, b = np.meshgrid(log_lr - centre[0], log_decay - centre[1], indexing="ij")
    y = ((c * a + s * b) ** 2 + steep * (c * b - s * a) ** 2) / 2
    aa, al, ll = c**2 + steep * s**2, (1 - steep) * c * s, s**2 + steep * c**2
    found = analyse(surface(y, log_lr, log_decay), basin_quantile=1)
    assume(found.ridge_rows >= 3 and found.reverse_slope.value is not None)
    slope, reverse, rho = map(value, (found.ridge_slope, found.reverse_slope, found.curvature_coupling))
    assert (slope, reverse, rho) == pytest.approx((-al / ll, -al / aa, al / sqrt(aa * ll)), abs=1e-7)
    assert slope * reverse == pytest.approx(rho**2, abs=1e-7)


def test_cells_that_are_out_leave_a_pair_out_or_the_verdict_undetermined() -> None:
    whole = surface(repeated(RIDGE))
    holed = whole.values.copy()
    holed[5, 6] = np.nan  # where row 4's best λ lands in row 5
    for status, counted, out in ((None, 20, 0), (CellStatus.DIVERGED, 19, 1), (CellStatus.MISSING, 19, 0)):
        lanes = whole.lanes.copy()
        lanes[5, 6] = (status or CellStatus.COMPLETE).value
        values = holed if status else whole.values
        found = analyse(Surface(whole.lr, whole.weight_decay, whole.seeds, values, lanes, whole.rule))
        assert (regret(found, 1).pairs, regret(found, 1).pairs_out) == (counted, out)
        assert value(regret(found, 1).estimate) == pytest.approx(1)
        assert (5 in dict(found.ridge)) is (status is None)  # a neighbour of its best cell is lost
    for name, y, reason in (
        ("3x3", repeated(BOWL[4:7, 4:7]), "too few cells: 9 of 9"),
        ("all diverged", np.full((11, 11, 3), np.nan), "too few cells: 0 of 121"),
        ("constant", repeated(np.full((11, 11), 0.1)) + np.array([0.1, 0.2, 0.3]), "flat"),
        ("one column", repeated(BOWL[:, 5:6]), "interior in 0 of"),
        ("λ idle", repeated(A**2), "interior in 0 of"),
        ("baseline only", np.empty((11, 0, 3)), "not applicable"),
    ):
        column = np.ones((11, 3)) if name == "baseline only" else None
        found = analyse(surface(y, baseline=column))
        assert (found.verdict, reason in found.reason) == (Verdict.UNDETERMINED, True), name
        assert all(map(isfinite, every(float, found))), name
        assert name != "constant" or found.on_edge == ()
    y = noisy(BOWL, 3, 0.1)
    y[8:] *= 1e306
    assert all(map(isfinite, every(float, analyse(surface(y), basin_quantile=1, initial=1e308))))


SHAPES = st.tuples(st.integers(1, 6), st.integers(0, 6), st.integers(0, 5))
FEW_VALUES = st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, np.nan])
SMALL = SHAPES.flatmap(lambda shape: arrays(np.float64, shape, elements=FEW_VALUES))


@given(SMALL, st.booleans(), st.sampled_from([None, 1.0]), st.sampled_from([0.1, 0.5, 1.0]))
def test_every_answer_is_finite_or_has_a_reason(y: Float, zero: bool, cap: float | None, part: float) -> None:
    one = surface(y, cap=cap, baseline=np.full((y.shape[0], y.shape[2]), 0.2) if zero else None)
    found = analyse(one, basin_quantile=part, resamples=50, initial=0.7)
    assert all(map(isfinite, every(float, found)))
    for estimate in every(Estimate, found):
        assert (estimate.low is None) == (estimate.high is None)
        assert estimate.value is not None or estimate.reason
    assert (found.verdict is not Verdict.UNDETERMINED) or found.reason
