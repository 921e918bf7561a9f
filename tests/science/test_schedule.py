"""η_t as the papers draw it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.schedule import Schedule, Timetable

schedules = st.sampled_from(Schedule)
timetables = st.builds(
    Timetable,
    schedules,
    epochs=st.integers(11, 200),
    steps_per_epoch=st.integers(1, 9),
    warmup=st.integers(0, 10),
    t_0=st.integers(1, 30),
    t_mult=st.integers(1, 3),
    eta_min=st.floats(0, 0.9),
)


def etas(timetable: Timetable) -> list[float]:
    return [timetable.eta(t) for t in range(timetable.epochs * timetable.steps_per_epoch)]


def plain(schedule: Schedule, n: int) -> list[float]:
    return etas(Timetable(schedule, n, 1))


@given(timetables)
def test_eta_stays_between_its_least_and_one(timetable: Timetable) -> None:
    found = etas(timetable)
    behind = found[timetable.warmup * timetable.steps_per_epoch :]
    assert all(0 < eta <= 1 for eta in found)
    assert behind[0] == pytest.approx(1)
    assert min(behind) >= timetable.eta_min - 1e-12


@given(schedules, st.integers(1, 3000))
def test_a_schedule_without_restarts_never_rises(schedule: Schedule, n: int) -> None:
    if schedule is not Schedule.RESTARTS:
        found = plain(schedule, n)
        assert found[0] == 1
        assert found == sorted(found, reverse=True)


@given(st.integers(1, 3000))
def test_cosine_is_symmetric_about_the_middle(n: int) -> None:
    timetable = Timetable(Schedule.COSINE, n, 1)
    for t in range(1, n):
        assert timetable.eta(t) + timetable.eta(n - t) == pytest.approx(1)


@pytest.mark.parametrize("n", [10, 100, 360])
def test_step_drops_at_30_60_and_80_percent(n: int) -> None:
    found = plain(Schedule.STEP, n)
    assert [t for t in range(1, n) if found[t] < found[t - 1]] == [3 * n // 10, 6 * n // 10, 8 * n // 10]
    assert found[-1] == pytest.approx(0.001)


def test_fixed_is_fixed_and_linear_is_linear() -> None:
    assert plain(Schedule.FIXED, 7) == [1.0] * 7
    assert plain(Schedule.LINEAR, 4) == [1.0, 0.75, 0.5, 0.25]


@given(timetables)
def test_warm_up_rises_linearly_to_one(timetable: Timetable) -> None:
    warm = timetable.warmup * timetable.steps_per_epoch
    assert etas(timetable)[:warm] == pytest.approx([(t + 1) / warm for t in range(warm)])


class TestRestarts:
    """SGDR, equations 14 and 15 of the AdamW paper."""

    paper = Timetable(Schedule.RESTARTS, 1800, 391, t_0=100, t_mult=2)

    def test_the_papers_example_is_zero_at_100_300_700_1500_and_one_just_after(self) -> None:
        assert self.paper.snapshots == (100, 300, 700, 1500)
        for epoch in self.paper.snapshots:
            assert self.paper.eta(391 * epoch - 1) < 1e-4
            assert self.paper.eta(391 * epoch) == 1

    @pytest.mark.parametrize(("epoch", "start", "length"), [(50, 0, 100), (150, 100, 200), (900, 700, 800)])
    def test_t_cur_is_fractional(self, epoch: int, start: int, length: int) -> None:
        for batch in (0, 1, 200, 390):
            t_cur = epoch - start + batch / 391
            wanted = 0.5 + 0.5 * math.cos(math.pi * t_cur / length)
            assert self.paper.eta(391 * epoch + batch) == pytest.approx(wanted, abs=1e-12)

    def test_normalised_decay_takes_the_batches_of_the_current_cycle(self) -> None:
        found = [self.paper.steps_of_cycle(391 * epoch) // 391 for epoch in (0, 99, 100, 299, 300, 1500)]
        assert found == [100, 100, 200, 200, 400, 1600]

    @given(timetables)
    def test_the_last_batch_of_a_snapshot_is_the_last_before_a_rise(self, timetable: Timetable) -> None:
        found, per_epoch = etas(timetable), timetable.steps_per_epoch
        rises = {t for t in range(1, len(found)) if found[t] > found[t - 1]}
        for epoch in timetable.snapshots:
            assert epoch <= timetable.epochs
            t = epoch * per_epoch
            if t < len(found) and per_epoch * timetable.t_0 > 1:
                assert t in rises

    @given(timetables)
    def test_other_schedules_have_one_cycle_and_no_snapshot(self, timetable: Timetable) -> None:
        if timetable.schedule is not Schedule.RESTARTS:
            n = timetable.epochs * timetable.steps_per_epoch
            assert timetable.snapshots == ()
            assert {timetable.steps_of_cycle(t) for t in range(0, n, 7)} == {n}


def test_warm_up_comes_before_the_first_cycle() -> None:
    timetable = Timetable(Schedule.RESTARTS, 20, 1, warmup=2, t_0=4, t_mult=2)
    assert timetable.snapshots == (6, 14)
    assert [timetable.eta(t) for t in (0, 1, 2, 6, 14)] == [0.5, 1, 1, 1, 1]


def test_eta_min_is_where_the_cosine_ends() -> None:
    timetable = Timetable(Schedule.COSINE, 1000, 1, eta_min=0.1)
    assert timetable.eta(0) == 1
    assert timetable.eta(500) == pytest.approx(0.55)
    assert timetable.eta(999) == pytest.approx(0.1, abs=1e-5)
