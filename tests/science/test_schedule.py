"""η_t follows the papers' schedules."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.schedule import Schedule, Timetable

epochs, steps, warmup, t_0 = (st.integers(*ends) for ends in ((11, 100), (1, 9), (0, 10), (1, 30)))
timetables = st.builds(
    Timetable, st.sampled_from(Schedule), epochs, steps, warmup, t_0, st.integers(1, 3), st.floats(0, 0.9)
)


@given(timetables)
def test_eta_warms_up_linearly_and_stays_between_its_least_and_one(timetable: Timetable) -> None:
    per_epoch, n = timetable.steps_per_epoch, timetable.epochs * timetable.steps_per_epoch
    found, warm = [timetable.eta(t) for t in range(n)], timetable.warmup * per_epoch
    assert found[:warm] == pytest.approx([(t + 1) / warm for t in range(warm)])
    assert all(0 < eta <= 1 for eta in found)
    assert found[warm] == pytest.approx(1)
    assert min(found[warm:]) >= timetable.eta_min - 1e-12
    if timetable.schedule is not Schedule.RESTARTS:
        assert found[warm:] == sorted(found[warm:], reverse=True)
        assert timetable.snapshots == ()
        assert {timetable.steps_of_cycle(t) for t in range(0, n, 7)} == {n}
    for epoch in timetable.snapshots:
        assert epoch <= timetable.epochs
        if epoch < timetable.epochs and per_epoch * timetable.t_0 > 1:
            assert found[epoch * per_epoch] > found[epoch * per_epoch - 1]


def test_schedules_have_the_shapes_and_restarts_of_the_papers() -> None:
    for schedule, shape in ((Schedule.FIXED, [1.0] * 4), (Schedule.LINEAR, [1.0, 0.75, 0.5, 0.25])):
        assert [Timetable(schedule, 4, 1).eta(t) for t in range(4)] == shape
    for n in (10, 100, 360):
        found = [Timetable(Schedule.STEP, n, 1).eta(t) for t in range(n)]
        assert [t for t in range(1, n) if found[t] < found[t - 1]] == [3 * n // 10, 6 * n // 10, 8 * n // 10]
        assert found[-1] == pytest.approx(0.001)
    ends = Timetable(Schedule.COSINE, 1000, 1, eta_min=0.1)
    assert [ends.eta(t) for t in (0, 500, 999)] == pytest.approx([1, 0.55, 0.1], abs=1e-5)
    paper = Timetable(Schedule.RESTARTS, 1800, 391, t_0=100, t_mult=2)  # AdamW paper, equations 14 and 15
    assert paper.snapshots == (100, 300, 700, 1500)
    for epoch, start, n in (50, 0, 100), (99, 0, 100), (150, 100, 200), (900, 700, 800), (1500, 1500, 1600):
        assert paper.steps_of_cycle(391 * epoch) == 391 * n  # N of normalized decay
        for batch in (0, 1, 200, 390):  # T_cur is fractional
            wanted = 0.5 + 0.5 * math.cos(math.pi * (epoch - start + batch / 391) / n)
            assert paper.eta(391 * epoch + batch) == pytest.approx(wanted, abs=1e-12)
    timetable = Timetable(Schedule.RESTARTS, 20, 1, warmup=2, t_0=4, t_mult=2)
    assert timetable.snapshots == (6, 14), "warm-up precedes the first cycle"
    assert [timetable.eta(t) for t in (0, 1, 2, 6, 14)] == [0.5, 1, 1, 1, 1]
