"""η_t as the paper draws it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.schedule import Schedule

runs = st.integers(1, 5000)


@given(st.sampled_from(Schedule), runs)
def test_schedule_starts_at_one_and_never_rises(schedule: Schedule, n: int) -> None:
    eta = [schedule.eta(t, n) for t in range(n)]
    assert eta[0] == 1
    assert eta == sorted(eta, reverse=True)
    assert eta[-1] >= 0


@given(runs)
def test_cosine_is_symmetric_about_the_middle(n: int) -> None:
    for t in range(n):
        assert Schedule.COSINE.eta(t, n) + Schedule.COSINE.eta(n - t, n) == pytest.approx(1)


@pytest.mark.parametrize("n", [10, 100, 360])
def test_step_drops_at_30_60_and_80_percent(n: int) -> None:
    drops = [t for t in range(1, n) if Schedule.STEP.eta(t, n) < Schedule.STEP.eta(t - 1, n)]
    assert drops == [3 * n // 10, 6 * n // 10, 8 * n // 10]
    assert Schedule.STEP.eta(n - 1, n) == pytest.approx(0.001)


def test_fixed_is_fixed() -> None:
    assert {Schedule.FIXED.eta(t, 7) for t in range(7)} == {1.0}
