"""The noise test: λ without a measurable effect within rows leaves the verdict undetermined."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrwd_sweep.science.separability import Verdict, analyse
from lrwd_sweep.science.separability.verdict import NoiseTest, _ranks, interval_verdict, noise_test
from lrwd_sweep.science.surface import Bool, Float
from tests.science.separability.surfaces import BOWL, RIDGE, A, L, noisy, repeated, surface, value

Draw = Callable[[np.random.Generator, int], Float]  # (rng, R) -> (11, 11, R) without any effect of λ
SHAPE = (11, 11)


def white(rng: np.random.Generator, seeds: int) -> Float:
    """Every cell and seed for itself, and a common offset per seed."""
    return rng.standard_normal((*SHAPE, seeds)) + rng.standard_normal(seeds)


def uneven(rng: np.random.Generator, seeds: int) -> Float:
    """The same, eight times as noisy at the highest λ as at the lowest."""
    size = np.exp2((np.arange(11) - 5) * 0.3)[:, None]
    return np.asarray(size * rng.standard_normal((*SHAPE, seeds)))


def rows_by_seed(rng: np.random.Generator, seeds: int) -> Float:
    """White noise and, twice as large, an offset per row and seed."""
    return white(rng, seeds) + 2 * rng.standard_normal((11, 1, seeds))


def level_only(rng: np.random.Generator, seeds: int) -> Float:
    """A bowl in α and white noise: no λ is better than another."""
    return white(rng, seeds) + 0.3 * A[..., None] ** 2


NO_EFFECT: list[Draw] = [white, uneven, rows_by_seed, level_only]


def f_of(y: Float) -> NoiseTest:
    """The noise test of a surface, which must exist."""
    found = analyse(surface(y)).noise_test
    assert found is not None
    return found


# --- known answers ------------------------------------------------------------------------------------


def by_hand(y: Float, inside: Bool) -> tuple[float, int]:
    """F and its first degrees of freedom, cell by cell as the definition reads."""
    seeds, between, within, freedom = y.shape[2], 0.0, 0.0, 0
    for i in range(y.shape[0]):
        columns = np.flatnonzero(inside[i])
        freedom += max(len(columns) - 1, 0)
        d = np.array([[y[i, j, r] - y[i, columns, r].mean() for r in range(seeds)] for j in columns])
        for cell in d:
            between += seeds * cell.mean() ** 2
            within += ((cell - cell.mean()) ** 2).sum()
    return (between / freedom) / (within / ((seeds - 1) * freedom)), freedom


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_f_is_that_of_the_definition(seeds: int) -> None:
    y = noisy(BOWL, seeds, 3.0)
    f, freedom = by_hand(y, np.ones(SHAPE, dtype=bool))
    found = f_of(y)
    assert found.f == pytest.approx(f)
    assert found.freedom == (freedom, (seeds - 1) * freedom) == (110, (seeds - 1) * 110)


def test_cells_that_are_out_are_left_out_of_their_rows() -> None:
    y = noisy(BOWL, 3, 3.0)
    y[0, 1:, 1] = np.nan  # a row with one cell
    y[1] = np.nan  # a row with none
    y[4, 7] = np.inf
    f, freedom = by_hand(y, np.asarray(np.isfinite(y).all(axis=2)))
    found = f_of(y)
    assert found.f == pytest.approx(f)
    assert found.freedom == (freedom, 2 * freedom) == (89, 178)


def test_needed_is_the_tabulated_quantile() -> None:
    y = noisy(BOWL[:3, :6], 3, 1.0)
    found = noise_test(y, np.array([[True] * 6, [True] * 6, [False] * 6]))
    assert found is not None
    assert found.freedom == (10, 20)
    assert found.needed == pytest.approx(3.37, abs=0.005)


def test_baseline_column_takes_no_part() -> None:
    y = noisy(BOWL, 3, 3.0)
    based = analyse(surface(y, baseline=np.full((11, 3), -50.0))).noise_test
    assert based == f_of(y)


def test_no_test_with_one_seed() -> None:
    assert analyse(surface(noisy(BOWL, 1, 1.0))).noise_test is None


@pytest.mark.parametrize("offset", [0.0, 1.0 / 3.0])
def test_seeds_that_agree_are_not_tested_and_the_interval_decides(offset: float) -> None:
    found = analyse(surface(repeated(RIDGE / 7) + offset * np.arange(3.0)))
    assert found.noise_test is None
    assert found.verdict is Verdict.PRODUCT_COUPLED


def test_rows_of_one_cell_are_not_tested() -> None:
    assert noise_test(noisy(BOWL, 3, 1.0), np.eye(11, dtype=bool)) is None
    assert noise_test(np.empty((0, 0, 3)), np.empty((0, 0), dtype=bool)) is None
    assert noise_test(np.zeros((11, 11, 3)), np.ones(SHAPE, dtype=bool)) is None


def test_absurdly_large_values_overflow_nothing() -> None:
    y = noisy(BOWL, 3, 1.0)
    assert f_of(y * 1e305).f == pytest.approx(f_of(y).f)


@settings(deadline=None)
@given(
    stream=st.integers(0, 1000),
    scale=st.floats(0.01, 100),
    level=st.floats(-10, 10),
    columns=st.permutations(range(11)),
    seeds=st.permutations(range(3)),
)
def test_f_knows_no_unit_no_level_of_a_row_and_no_order(
    stream: int, scale: float, level: float, columns: list[int], seeds: list[int]
) -> None:
    y = noisy(BOWL, 3, 5.0, stream)
    levels = np.random.default_rng(stream).standard_normal((11, 1, 3)) * level
    there = scale * (y[:, columns][..., seeds] + levels) + level
    assert f_of(there).f == pytest.approx(f_of(y).f, rel=1e-6)


# --- verdicts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", NO_EFFECT)
@pytest.mark.parametrize("seeds", [3, 5])
def test_surface_without_an_effect_of_decay_is_undetermined(draw: Draw, seeds: int) -> None:
    found = [analyse(surface(draw(np.random.default_rng(stream), seeds))) for stream in range(25)]
    assert {each.verdict for each in found} == {Verdict.UNDETERMINED}
    said = ["λ has no measurable effect within rows: F(110, " in each.reason for each in found]
    assert sum(said) >= 20  # F's quantile is that of even noise


def test_reason_says_that_the_test_and_not_the_interval_left_the_verdict_open() -> None:
    """A level f(α) alone gives an interval that would decide in some of a hundred draws."""
    surfaces = (surface(level_only(np.random.default_rng(stream), 5)) for stream in range(200))
    found = next(
        each
        for each in map(analyse, surfaces)
        if interval_verdict(each.ridge_slope) is not Verdict.UNDETERMINED
    )
    assert found.verdict is Verdict.UNDETERMINED
    assert found.point_verdict is not Verdict.UNDETERMINED
    test = found.noise_test
    assert test is not None
    assert found.reason.startswith(
        f"λ has no measurable effect within rows: F(110, 440) = {test.f:.2f}, of ranks {test.f_of_ranks:.2f}"
    )
    assert "allows more than one verdict" not in found.reason
    assert {other.verdict for other in found.robustness} == {Verdict.UNDETERMINED}


@pytest.mark.parametrize("y", [BOWL, RIDGE], ids=["bowl", "ridge"])
def test_offsets_of_rows_and_seeds_are_no_noise(y: Float) -> None:
    calm = noisy(y, 3, 0.3)
    shifted = calm + 30 * np.random.default_rng(1).standard_normal((11, 1, 3))
    here, there = analyse(surface(calm), basin_quantile=1), analyse(surface(shifted), basin_quantile=1)
    assert there.noise_test is not None
    assert there.noise_test.f == pytest.approx(f_of(calm).f)
    assert there.verdict is here.verdict
    assert there.verdict is not Verdict.UNDETERMINED
    assert value(there.ridge_slope) == pytest.approx(value(here.ridge_slope))


def test_interval_within_the_band_decides_where_the_basins_means_spread_little() -> None:
    """A valley along λ whose floor is level in α: within rows clear, between basin cells little."""
    y = 0.05 * np.abs(L) + 0.0 * A
    rows = np.random.default_rng(0).standard_normal((11, 1, 3))
    rows -= rows.mean(axis=2, keepdims=True)
    found = analyse(surface(noisy(y, 3, 0.01) + rows))
    assert found.interaction_share.value is None
    assert "residual variance" in found.interaction_share.reason
    assert found.verdict is interval_verdict(found.ridge_slope) is Verdict.SEPARABLE
    assert "noise" not in found.reason


def test_unstable_row_does_not_hide_what_decay_does_in_the_others() -> None:
    calm = noisy(BOWL, 3, 0.3)
    wild = calm.copy()
    wild[-1] += 1e4 + 1e3 * np.random.default_rng(5).standard_normal((11, 3))
    found = analyse(surface(wild))
    test = found.noise_test
    assert test is not None
    assert test.f_of_ranks is not None
    assert test.f < test.needed <= test.f_of_ranks
    assert found.verdict is analyse(surface(calm)).verdict is Verdict.SEPARABLE


def test_ranks_are_taken_within_row_and_seed_and_ties_share_theirs() -> None:
    y = np.array([[[0.1], [0.3], [0.3], [9.0]]])
    inside = np.array([[True, True, True, False]])
    assert _ranks(y, inside)[0, :3, 0].tolist() == [0.0, 1.5, 1.5]


def test_seeds_that_order_all_cells_alike_pass() -> None:
    y = noisy(BOWL, 3, 0.0) * np.array([1.0, 2.0, 3.0])
    found = f_of(y)
    assert found.f_of_ranks is None
    assert found.passed


def test_text_keeps_apart_what_two_decimals_would_not() -> None:
    text = NoiseTest(0.912, 1.02, (110, 220), 1.4548).text
    assert text == "F(110, 220) = 0.91, of ranks 1.02, 1.45 needed"
    text = NoiseTest(1.02, 1.4544, (110, 220), 1.4548).text
    assert text == "F(110, 220) = 1.020, of ranks 1.454, 1.455 needed"


@pytest.mark.slow
@pytest.mark.parametrize("draw", NO_EFFECT)
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_false_verdicts_on_noise_are_one_in_a_hundred_at_most(draw: Draw, seeds: int) -> None:
    runs = 600
    found = [
        analyse(surface(draw(np.random.default_rng(stream), seeds)), resamples=300).verdict
        for stream in range(runs)
    ]
    assert sum(verdict is not Verdict.UNDETERMINED for verdict in found) <= 0.01 * runs


@pytest.mark.slow
@pytest.mark.parametrize("draw", NO_EFFECT[:1] + NO_EFFECT[2:])
def test_noise_passes_in_one_or_two_of_a_hundred_lattices(draw: Draw) -> None:
    tests = [f_of(draw(np.random.default_rng(stream), 3)) for stream in range(2000)]
    assert 0.004 <= np.mean([test.f >= test.needed for test in tests]) <= 0.018
    assert 0.004 <= np.mean([(test.f_of_ranks or 0) >= test.needed for test in tests]) <= 0.018
    assert np.mean([test.passed for test in tests]) <= 0.025
