"""η_t follows the papers' schedules."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.schedule import Schedule, Timetable

timetables = st.builds(
    Timetable,
    st.sampled_from(Schedule),
    epochs=st.integers(11, 100),
    steps_per_epoch=st.integers(1, 9),
    warmup=st.integers(0, 10),
    t_0=st.integers(1, 30),
    t_mult=st.integers(1, 3),
    eta_min=st.floats(0, 0.9),
)
PAPER = Timetable(Schedule.RESTARTS, 1800, 391, t_0=100, t_mult=2)  # SGDR, AdamW paper equations 14 and 15


def plain(schedule: Schedule, n: int) -> list[float]:
    return [Timetable(schedule, n, 1).eta(t) for t in range(n)]


@given(timetables)
def test_eta_warms_up_linearly_and_stays_between_its_least_and_one(timetable: Timetable) -> None:
    per_epoch, n = timetable.steps_per_epoch, timetable.epochs * timetable.steps_per_epoch
    found = [timetable.eta(t) for t in range(n)]
    warm = timetable.warmup * per_epoch
    assert found[:warm] == pytest.approx([(t + 1) / warm for t in range(warm)])
    assert all(0 < eta <= 1 for eta in found)
    assert found[warm] == pytest.approx(1)
    assert min(found[warm:]) >= timetable.eta_min - 1e-12
    if timetable.schedule is not Schedule.RESTARTS:
        assert found[warm:] == sorted(found[warm:], reverse=True)
        assert timetable.snapshots == ()
        assert {timetable.steps_of_cycle(t) for t in range(0, n, 7)} == {n}
    rises = {t for t in range(1, len(found)) if found[t] > found[t - 1]}
    for epoch in timetable.snapshots:
        assert epoch <= timetable.epochs
        if epoch < timetable.epochs and per_epoch * timetable.t_0 > 1:
            assert epoch * per_epoch in rises


def test_schedules_have_the_shapes_and_restarts_of_the_papers() -> None:
    assert plain(Schedule.FIXED, 7) == [1.0] * 7
    assert plain(Schedule.LINEAR, 4) == [1.0, 0.75, 0.5, 0.25]
    for n in (10, 100, 360):
        found = plain(Schedule.STEP, n)
        assert [t for t in range(1, n) if found[t] < found[t - 1]] == [3 * n // 10, 6 * n // 10, 8 * n // 10]
        assert found[-1] == pytest.approx(0.001)
        cosine = plain(Schedule.COSINE, n)
        assert cosine[1:] == pytest.approx([1 - eta for eta in cosine[:0:-1]])  # symmetric about the middle
    ends = Timetable(Schedule.COSINE, 1000, 1, eta_min=0.1)
    assert [ends.eta(t) for t in (0, 500, 999)] == pytest.approx([1, 0.55, 0.1], abs=1e-5)
    assert PAPER.snapshots == (100, 300, 700, 1500)
    for epoch in PAPER.snapshots:
        assert PAPER.eta(391 * epoch - 1) < 1e-4
        assert PAPER.eta(391 * epoch) == 1
    for epoch, start, length in ((50, 0, 100), (150, 100, 200), (900, 700, 800)):
        for batch in (0, 1, 200, 390):  # T_cur is fractional
            t_cur = epoch - start + batch / 391
            wanted = 0.5 + 0.5 * math.cos(math.pi * t_cur / length)
            assert PAPER.eta(391 * epoch + batch) == pytest.approx(wanted, abs=1e-12)
    found = [PAPER.steps_of_cycle(391 * epoch) // 391 for epoch in (0, 99, 100, 299, 300, 1500)]
    assert found == [100, 100, 200, 200, 400, 1600]  # N of normalized decay
    timetable = Timetable(Schedule.RESTARTS, 20, 1, warmup=2, t_0=4, t_mult=2)
    assert timetable.snapshots == (6, 14), "warm-up precedes the first cycle"
    assert [timetable.eta(t) for t in (0, 1, 2, 6, 14)] == [0.5, 1, 1, 1, 1]
