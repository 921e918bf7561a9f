"""Steps as a program, and steps replayed from a recording, equal the host's steps bit for bit."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.engine import graph
from lrwd_sweep.engine.graph import TOLERANCE, Capture, Program
from lrwd_sweep.engine.pack import PackTrainer, Stopped
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task
from tests.engine import tape

pytestmark = pytest.mark.usefixtures("without_numba")

CELLS = [Cell(0.01, 1e-3), Cell(1e300, 0.1), Cell(0.002, 0.05)]  # the second diverges within a few steps
WAYS: dict[str, Capture | None] = {"as written": None, "replayed": tape.record}


def _task(**options: object) -> Task:
    return Task(**{"epochs": 2, "schedule": Schedule.RESTARTS, **options})  # type: ignore[arg-type]


def _on_device(name: str, task: Task, splits: Splits, record: Capture | None) -> PackTrainer:
    """Make a pack that trains as on a device."""
    trainer = PackTrainer(Optimizer.parse(name), task, CELLS, 0, splits)
    trainer.on_host, trainer.record = False, record
    return trainer


def _trained(trainer: PackTrainer) -> tuple[str, bool]:
    """Train; return all trials as text, so that NaN equals NaN, and whether a recording was replayed."""
    seen: list[bool] = []

    def look(epoch: int, metrics: dict[str, list[float]]) -> None:
        assert trainer.program is not None
        seen.append(trainer.program.replay is not None)

    found = repr(trainer.run(look))
    assert trainer.program is None
    return found, all(seen)


def _check(name: str, task: Task, splits: Splits, ways: tuple[str, ...] = tuple(WAYS)) -> None:
    """Assert that every number equals that of the host's steps, and that a recording is used if made."""
    host = PackTrainer(Optimizer.parse(name), task, CELLS, 0, splits)
    expected, theta = repr(host.run()), host.arena.theta.nan_to_num(0, 0, 0)
    for way in ways:
        device = _on_device(name, task, splits, WAYS[way])
        found, replayed = _trained(device)
        case = f"{name} {task.net} {task.engine} batch {task.batch_size} {way}"
        assert found == expected, case
        assert torch.equal(device.arena.theta.nan_to_num(0, 0, 0), theta), case
        assert replayed is (WAYS[way] is not None), case


def test_updates_equal_those_of_the_host(digits64: Splits) -> None:
    names = "sgd", "adamw", "amsgradw:lr-scaled", "rmspropw:corrected", "adagradw:fixed:normalized"
    for name in (*names, "adamp", "sgdp"):
        trials = _on_device(name, _task(net="mlp", epochs=1), digits64, None).run()
        assert [trial.status is Status.DIVERGED for trial in trials] == [False, True, False], name
        _check(name, _task(net="mlp"), digits64)


def test_networks_and_augmentation_equal_those_of_the_host(digits64: Splits) -> None:
    for net, engine in (("mlp-norm", "auto"), ("mlp", "vmap"), ("cnn", "loop")):
        _check("sgdw", _task(net=net, engine=engine), digits64)
    _check("adamw", _task(net="mlp", augment="crop-flip-cutout"), digits64)  # new numbers in every step


def test_any_number_of_steps_is_recorded_together(digits64: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    for batch_size, recorded in ((40, 1), (40, 3), (64, 8), (64, 3), (130, 1), (130, 8)):
        monkeypatch.setattr(graph, "RECORDED", recorded)  # of 10, 6 and 3 steps per epoch
        _check("sgdw", _task(net="mlp", epochs=3, batch_size=batch_size), digits64, ("replayed",))
    task = _task(net="mlp", batch_size=200)  # fewer than three steps are not recorded
    expected = repr(PackTrainer(Optimizer.parse("sgdw"), task, CELLS, 0, digits64).run())
    assert _trained(_on_device("sgdw", task, digits64, tape.record)) == (expected, False)


def _spoilt(spoil: Callable[[Program], object]) -> Capture:
    def record(program: Program) -> Callable[[int], None]:
        advance = tape.record(program)

        def broken(count: int) -> None:
            advance(count)
            spoil(program)

        return broken

    return record


def _refuses(program: Program) -> Callable[[int], None]:
    program.streams[0].manual_seed(5)  # as a recording that fails half way leaves it
    raise RuntimeError("operation not permitted when stream is capturing")


def _no_room(program: Program) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


BROKEN: dict[str, Capture] = {
    "refuses": _refuses,
    "has no room to run": _spoilt(_no_room),
    "trains on one batch": _spoilt(lambda program: program.k.zero_()),
    "stays at one row of the table": _spoilt(lambda program: program.t.zero_()),
    "draws the same numbers": _spoilt(lambda program: program.streams[1].manual_seed(0)),
    "moves nothing": lambda program: lambda count: None,
    "sums nothing": _spoilt(lambda program: program.total.zero_()),
    "ends in NaN": _spoilt(lambda program: program.theta.fill_(torch.nan)),
}


def test_a_recording_that_differs_is_dropped(digits32: Splits) -> None:
    task = _task(net="mlp", augment="crop-flip", warmup=1)
    plain = _trained(_on_device("adamw", task, digits32, None))
    for fault, record in BROKEN.items():
        assert _trained(_on_device("adamw", task, digits32, record)) == plain, fault


def _rounding_differently(program: Program) -> Callable[[int], None]:
    """Record steps whose sums are taken in another order, as a GPU may do each time."""
    as_written = program.step
    stream = torch.Generator().manual_seed(0)
    noise = 1 + 5e-7 * torch.randn(program.theta.shape, generator=stream, dtype=torch.float64)

    def step(batch: Tensor, t: Tensor) -> Tensor:
        measures = as_written(batch, t)
        program.theta.mul_(noise)
        return measures

    program.step = step
    return tape.record(program)


def test_a_recording_may_round_differently_even_if_a_network_amplifies_it(digits64: Splits) -> None:
    """In float64, in which this machine's own rounding does not count."""
    task = _task(net="resnet20", engine="loop", epochs=1, batch_size=40)
    cells = [Cell(0.1, 1e-3)]
    ends: list[Tensor] = []
    for record in (None, _rounding_differently):
        trainer = PackTrainer(Optimizer.parse("sgdw"), task, cells, 0, digits64)
        trainer.on_host, trainer.record = False, record
        start = trainer.arena.theta.clone()
        _, replayed = _trained(trainer)
        assert replayed is (record is not None)
        ends.append(trainer.arena.theta)
    assert (ends[1] - ends[0]).norm() / (ends[0] - start).norm() > TOLERANCE


def test_a_pack_frees_its_memory_without_the_garbage_collector(
    digits32: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Program]] = []

    class Watched(Program):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            assert all(program() is None for program in made)
            super().__init__(*arguments, **options)
            made.append(weakref.ref(self))

    monkeypatch.setattr("lrwd_sweep.engine.pack.Program", Watched)
    gc.disable()
    try:
        trainer = _on_device("adamw", _task(net="mlp"), digits32, tape.record)
        trainer.run()
        theta = weakref.ref(trainer.arena.theta)
        del trainer
        assert len(made) == 3
        assert made[2]() is None
        assert theta() is None
    finally:
        gc.enable()


def test_a_user_network_that_needs_the_host_trains_without_a_recording(digits64: Splits) -> None:
    quarters = Splits(*(Split(s.x, s.y % 4) for s in (digits64.train, digits64.validation, digits64.test)))
    sizes = DataSet(train=400, validation=697, test=700, classes=4, shape=(1, 8, 8))
    for net, engine, kept in (
        ("Dropping", "vmap", True), ("Dropping", "loop", True), ("LookingAtValues", "loop", False),
    ):  # fmt: skip
        task = _task(net=f"tests.nets.awkward:{net}", engine=engine, sizes=sizes)
        expected = PackTrainer(Optimizer.parse("sgd"), task, CELLS, 0, quarters).run()
        assert _trained(_on_device("sgd", task, quarters, tape.record)) == (repr(expected), kept), (
            net,
            engine,
        )


def test_only_known_networks_and_losses_are_recorded_on_a_gpu() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    for task in (_task(), _task(net="cnn")):
        assert graph.recorder(task, cuda) is graph.capture
        assert graph.recorder(task, cpu) is None
    assert graph.recorder(_task(net="tests.nets.awkward:Dropping"), cuda) is None
    assert graph.recorder(_task(loss="tests.nets.awkward:loss"), cuda) is None


def test_a_program_stops_when_asked(digits32: Splits) -> None:
    """The first epoch asks once: five steps are done before it is first asked."""
    asked, seen = iter([False] * 3 + [True] * 100), list[int]()
    with pytest.raises(Stopped):
        _on_device("adamw", _task(epochs=3), digits32, tape.record).run(
            lambda epoch, metrics: seen.append(epoch), asked.__next__
        )
    assert seen == [1]


Ends = tuple[Tensor, Tensor]


def _ends(*ways: float) -> Ends:
    """Return θ of lanes that have gone so far from ones, and their sums."""
    return torch.ones(len(ways), 5) + torch.tensor(ways).unsqueeze(1), torch.full((3, len(ways)), 1e3)


def _agree(found: Ends, expected: Ends, rounded: Ends | None = None) -> bool:
    return graph._agree(torch.ones(5), expected, rounded or expected, found)


def test_most_lanes_have_to_agree_within_the_growth_of_rounding() -> None:
    nan, inf, expected = torch.nan, torch.inf, _ends(1.0, 2.0, 3.0)
    for found, agree in (
        ((1.0, 2.0, 3.0), True),
        ((1.0 + 1e-5, 2.0 - 1e-5, 3.0), True),
        ((1.0, 2.0, 9.0), True),  # one lane diverges
        ((1.0, 2.1, 9.0), False),
        ((1.01, 2.02, 3.03), False),
        ((1.0, nan, nan), False),
    ):
        assert _agree(_ends(*found), expected) is agree, found
    for rounded, agree in (
        ((1.02, 2.02, 3.0), True),
        ((0.98, 2.0, 2.98), True),
        ((1.02, 2.0, 3.0), False),  # rounding moves two lanes less than they differ
        ((1.002, 2.002, 3.002), False),
        ((1.5, 2.5, 3.002), False),  # two lanes have no vote
        ((1.5, 2.5, 3.5), True),  # no lane has a vote
        ((nan, inf, 3.002), False),
    ):
        assert _agree(_ends(1.03, 2.03, 3.03), expected, _ends(*rounded)) is agree, rounded
    diverged = theta, sums = _ends(nan, inf, 3.0)
    assert _agree(diverged, diverged)
    assert not _agree((theta, 1.1 * sums), diverged)
    still = _ends(0.0, 0.0, 0.0)
    assert _agree(still, still)
    assert _agree(still, still, _ends(1e-6, nan, 0.0))
    assert not _agree(_ends(0.1, 0.1, 0.0), still)


def test_sums_may_differ_as_much_as_parameters() -> None:
    expected = theta, sums = _ends(1.0, 2.0, 3.0)
    assert _agree((theta, sums + 1), expected)  # a sample
    assert not _agree((theta, sums + 3), expected)
    assert _agree((theta, 1.1 * sums), expected, (theta + 0.05 * theta, sums))
    assert not _agree((theta, torch.zeros_like(sums)), expected, (theta + 0.05 * theta, sums))
