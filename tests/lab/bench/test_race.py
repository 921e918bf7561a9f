"""A race takes ratios repeat by repeat and survives a contender's failure; scaling and overhead add up."""

import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.errors import HostError, UnknownName, UsageError
from lrwd_sweep.lab import bench
from lrwd_sweep.lab.bench import ENGINE, Measurement, Spread, choose_contenders
from tests.lab.bench.made_up import ASKED, LATTICE, TASK
from tests.refusal import assert_raises

RUN: list[tuple[str, tuple[int, ...], str]] = []


@pytest.fixture
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the engine faster in every repeat, the other contenders equally slow, and vmap fail."""
    faster, slower = count(8, 2), count(1)

    def pretend(asked: Measurement, name: str, *lanes: int) -> dict[str, Any]:
        RUN.append((name, lanes, asked.device))
        match name:
            case "vmap":
                raise HostError("bench vmap: RuntimeError: no batching rule")
            case "floor":
                return {"rate": 100.0, "flop": 15e6, "validation": 6e6}
            case "scaling":
                repeat = next(slower)
                return {"seconds": [repeat * n for n in lanes], "at_once": 32}
            case "bookkeeping":
                return {"lanes": lanes[0], "sampler": 1.0, "store": 2.0}
        return {"rate": float(next(faster)) if name == ENGINE else 2.0}

    monkeypatch.setattr(Measurement, "in_process", pretend)


def run(names: list[str], repeats: int = 3, device: str = "cpu") -> bench.Race:
    RUN.clear()
    asked, options = Measurement(TASK, LATTICE, device), {"lanes": 27, "other_lanes": 2, "repeats": repeats}
    return bench.race(choose_contenders(names), asked, on_run=lambda name, rate: None, **options)


@pytest.mark.usefixtures("_unmeasured")
def test_ratios_are_taken_repeat_by_repeat_and_a_failed_contender_is_left_out() -> None:
    found = run(["plain", "vmap"])
    engine, plain, vmap = found.contenders
    assert engine.lane_steps_per_second == Spread.of([8.0, 10.0, 12.0])
    assert (plain.lane_steps_per_second, plain.engine_ratio) == (Spread.of([2.0] * 3), Spread.of([4, 5, 6]))
    assert (engine.lanes, plain.lanes) == (27, 2)
    assert (vmap.available, vmap.reason) == (False, "bench vmap: RuntimeError: no batching rule")
    assert vmap.lane_steps_per_second is None
    assert [name for name, *_ in RUN].count("vmap") == 1
    assert found.floor.fraction_reached == Spread.of([0.08, 0.1, 0.12])


@pytest.mark.usefixtures("_unmeasured")
def test_every_repeat_runs_all_contenders_on_one_device_in_the_same_random_orders() -> None:
    run(["plain", "processes"], repeats=8, device="cuda:1")
    names = [name for name, *_ in RUN]
    rounds = [names[k : k + 4] for k in range(0, len(names), 4)]
    assert all(sorted(each) == ["floor", ENGINE, "plain", "processes"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert {device for *_, device in RUN} == {"cuda:1"}
    before = RUN.copy()
    run(["plain", "processes"], repeats=8, device="cuda:1")
    assert before == RUN


def test_race_ends_if_the_engine_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(asked: Measurement, name: str, *lanes: int) -> dict[str, Any]:
        raise HostError(f"bench {name}: DeviceError: no room")

    monkeypatch.setattr(Measurement, "in_process", fail)
    assert_raises("no room", run, [], error=HostError)


def test_engine_takes_part_and_unusable_contenders_are_refused() -> None:
    assert choose_contenders(["vmap", "plain"]) == [ENGINE, "plain", "vmap"]
    assert choose_contenders() == [ENGINE, "plain", "compiled", "processes", "vmap"]
    assert choose_contenders(None, "cuda") == [ENGINE, "plain", "compiled", "graphs", "vmap"]
    only = "--contenders graphs runs only on cuda, not on cpu; leave"
    assert_raises(only, choose_contenders, ["plain", "graphs"], "cpu")
    assert_raises("did you mean plain", choose_contenders, ["plane"], error=UnknownName)
    assert_raises("names plain twice", choose_contenders, ["plain", "plain"])


def test_process_ignores_files_named_like_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("random", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    assert Measurement(TASK.changed(epochs=1), LATTICE).in_process("plain", 1)["rate"] > 0


@pytest.mark.slow
def test_error_in_the_process_is_one_line() -> None:
    task = TASK.changed(net="torchvision:squeezenet1_1")
    with pytest.raises(UsageError, match=r"torchvision:squeezenet1_1' does not take images of [^\n]*$"):
        Measurement(task, LATTICE).in_process(bench.FLOOR, 1)


@given(st.floats(0, 10), st.floats(1e-4, 1), st.integers(5, 5000))
def test_fitted_line_is_the_line_of_its_points(fixed: float, per_lane: float, most: int) -> None:
    line = bench.fit_line({lanes: fixed + per_lane * lanes for lanes in bench.log_spaced(most)})
    assert line is not None
    assert line.fixed_seconds == pytest.approx(fixed, abs=1e-6)
    assert line.seconds_per_lane == pytest.approx(per_lane, rel=1e-6)


@pytest.mark.usefixtures("_unmeasured")
def test_scaling_and_overhead_are_measured_in_every_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "until_first_epoch", lambda: 2.5)
    said: list[int] = []
    line = bench.scale(ASKED, most=10, repeats=2, on_repeat=said.append)
    assert [(p.lanes, p.seconds) for p in line.points] == [(n, Spread.of([n, 2 * n])) for n in (1, 2, 5, 10)]
    found = bench.overhead(ASKED, lanes=100, repeats=2, on_repeat=said.append)
    assert found.first_epoch_seconds == Spread.of([2.5, 2.5])
    assert (found.sampler_seconds_per_lane.median, found.store_seconds_per_lane.median) == (0.01, 0.02)
    assert found.both_seconds_per_lane == Spread.of([0.03, 0.03])
    assert said == [1, 2, 1, 2]


@pytest.mark.slow
def test_command_line_is_timed_until_its_first_epoch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < bench.until_first_epoch() < sys.float_info.max
    monkeypatch.setattr(bench, "GRID", ("grid", "--device", "nowhere"))
    with pytest.raises(HostError, match=r"^bench start-up: lrwd-sweep: unknown device 'nowhere'[^\n]*$"):
        bench.until_first_epoch()
