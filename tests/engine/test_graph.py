"""Steps as a program and steps replayed from a recording give what the host's steps give, bit for bit."""

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
NAMES = ["sgd", "adamw", "amsgradw:lr-scaled", "rmspropw:corrected", "adagradw:fixed:normalized"]
NETS = [("mlp", "auto"), ("mlp-norm", "auto"), ("mlp", "vmap"), ("cnn", "loop")]
WAYS: dict[str, Capture | None] = {"as written": None, "replayed": tape.record}


def _task(**options: object) -> Task:
    return Task(**{"epochs": 2, "schedule": Schedule.RESTARTS, **options})  # type: ignore[arg-type]


def _on_device(name: str, request: Task, splits: Splits, record: Capture | None) -> PackTrainer:
    """As it trains where the device is not the host's memory."""
    trainer = PackTrainer(Optimizer.parse(name), request, CELLS, 0, splits)
    trainer.on_host, trainer.record = False, record
    return trainer


def _trained(trainer: PackTrainer) -> tuple[str, bool]:
    """All its trials, NaN being NaN, and whether it replayed a recording."""
    seen: list[bool] = []

    def look(epoch: int, metrics: dict[str, list[float]]) -> None:
        assert trainer.program is not None
        seen.append(trainer.program.replay is not None)

    found = repr(trainer.run(look))
    assert trainer.program is None
    return found, all(seen)


def _same(name: str, request: Task, splits: Splits, record: Capture | None) -> bool:
    """Whether every number is that of the host's steps, and a recording is used if there is one."""
    host = PackTrainer(Optimizer.parse(name), request, CELLS, 0, splits)
    device = _on_device(name, request, splits, record)
    expected, (found, replayed) = repr(host.run()), _trained(device)
    theta, other = (trainer.arena.theta.nan_to_num(0, 0, 0) for trainer in (host, device))
    return expected == found and torch.equal(theta, other) and replayed is (record is not None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*NAMES, "adamp", "sgdp"])
def test_no_update_needs_the_host(name: str, way: str, digits64: Splits) -> None:
    trials = _on_device(name, _task(net="mlp"), digits64, WAYS[way]).run()
    assert [trial.status is Status.DIVERGED for trial in trials] == [False, True, False]
    assert _same(name, _task(net="mlp"), digits64, WAYS[way])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("net", "engine"), NETS)
def test_no_network_of_ours_needs_the_host(net: str, engine: str, way: str, digits64: Splits) -> None:
    assert _same("sgdw", _task(net=net, engine=engine), digits64, WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_every_step_draws_new_numbers(way: str, digits64: Splits) -> None:
    assert _same("adamw", _task(net="mlp", augment="crop-flip-cutout"), digits64, WAYS[way])


@pytest.mark.parametrize("recorded", [1, 3, 8])
@pytest.mark.parametrize("batch_size", [40, 64, 130])  # 10, 6 and 3 steps per epoch
def test_any_number_of_steps_is_recorded_together(
    batch_size: int, recorded: int, digits64: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "RECORDED", recorded)
    assert _same("sgdw", _task(net="mlp", epochs=3, batch_size=batch_size), digits64, tape.record)


@pytest.mark.parametrize("batch_size", [200, 400])  # 2 steps and 1
def test_of_fewer_than_three_steps_none_is_recorded(batch_size: int, digits64: Splits) -> None:
    request = _task(net="mlp", epochs=6, batch_size=batch_size)
    trainer = _on_device("sgdw", request, digits64, tape.record)
    expected = PackTrainer(Optimizer.parse("sgdw"), request, CELLS, 0, digits64).run()
    assert _trained(trainer) == (repr(expected), False)


def _spoilt(spoil: Callable[[Program], object]) -> Capture:
    def record(program: Program) -> Callable[[int], None]:
        advance = tape.record(program)

        def broken(count: int) -> None:
            advance(count)
            spoil(program)

        return broken

    return record


def _refuses(program: Program) -> Callable[[int], None]:
    program.streams[0].manual_seed(5)  # what is left behind by a recording that fails half way
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


@pytest.mark.parametrize("fault", BROKEN)
def test_a_recording_that_does_otherwise_is_given_up(fault: str, digits32: Splits) -> None:
    request = _task(net="mlp", augment="crop-flip", warmup=1)
    plain, trainer = (_on_device("adamw", request, digits32, way) for way in (None, BROKEN[fault]))
    assert _trained(trainer) == _trained(plain)


def _rounding_otherwise(program: Program) -> Callable[[int], None]:
    """As if sums were taken in another order; a GPU takes them in another each time."""
    as_written = program.step
    stream = torch.Generator().manual_seed(0)
    otherwise = 1 + 5e-7 * torch.randn(program.theta.shape, generator=stream, dtype=torch.float64)

    def step(batch: Tensor, t: Tensor) -> Tensor:
        measures = as_written(batch, t)
        program.theta.mul_(otherwise)
        return measures

    program.step = step
    return tape.record(program)


def test_a_recording_may_round_otherwise_even_where_a_network_makes_much_of_it(digits64: Splits) -> None:
    """In float64, where this machine's own rounding, which such a network multiplies too, does not count."""
    request = _task(net="resnet20", engine="loop", epochs=1, batch_size=40)
    cells = [Cell(0.03, 1e-3), Cell(0.1, 1e-3)]
    ends: list[Tensor] = []
    for record in (None, _rounding_otherwise):
        trainer = PackTrainer(Optimizer.parse("sgdw"), request, cells, 0, digits64)
        trainer.on_host, trainer.record = False, record
        start = trainer.arena.theta.clone()
        _, replayed = _trained(trainer)
        assert replayed is (record is not None)
        ends.append(trainer.arena.theta)
    apart = (ends[1] - ends[0]).norm() / (ends[0] - start).norm()
    assert apart > TOLERANCE


def test_a_pack_leaves_its_memory_at_once(digits32: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when somebody looks for cycles: whoever comes next needs the room."""
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


@pytest.fixture
def quarters(digits64: Splits) -> Splits:
    """The digits modulo 4."""
    return Splits(
        *(Split(s.x, s.y % 4) for s in (digits64.train, digits64.validation, digits64.test)),
    )


@pytest.mark.parametrize(
    ("net", "engine", "kept"),
    [
        ("Dropping", "vmap", True),
        ("Dropping", "loop", True),
        ("LookingAtValues", "loop", False),
    ],
)
def test_a_network_that_needs_the_host_trains_without_a_recording(
    net: str, engine: str, kept: bool, quarters: Splits
) -> None:
    sizes = DataSet(train=400, validation=697, test=700, classes=4, shape=(1, 8, 8))
    request = _task(net=f"tests.nets.awkward:{net}", engine=engine, sizes=sizes)
    trainer = _on_device("sgd", request, quarters, tape.record)
    expected = PackTrainer(Optimizer.parse("sgd"), request, CELLS, 0, quarters).run()
    assert _trained(trainer) == (repr(expected), kept)


def test_only_networks_that_we_know_are_recorded() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert graph.recorder(_task(), cuda) is graph.capture
    assert graph.recorder(_task(net="cnn"), cuda) is graph.capture
    assert graph.recorder(_task(), cpu) is None
    assert graph.recorder(_task(net="tests.nets.awkward:Dropping"), cuda) is None
    assert graph.recorder(_task(loss="tests.nets.awkward:loss"), cuda) is None


def test_a_program_stops_when_asked(digits32: Splits) -> None:
    asked = iter([False] * 3 + [True] * 100)
    trainer = _on_device("adamw", _task(epochs=3), digits32, tape.record)
    seen: list[int] = []
    with pytest.raises(Stopped):  # the first epoch asks once: five steps are done when it is first asked
        trainer.run(lambda epoch, metrics: seen.append(epoch), lambda: next(asked))
    assert seen == [1]


Ends = tuple[Tensor, Tensor]


def _ends(*ways: float) -> Ends:
    """Where lanes are that have gone so far from ones, with their sums."""
    return torch.ones(len(ways), 5) + torch.tensor(ways).unsqueeze(1), torch.full((3, len(ways)), 1e3)


def _agree(found: Ends, expected: Ends, rounded: Ends | None = None) -> bool:
    return graph._agree(torch.ones(5), expected, rounded or expected, found)


@pytest.mark.parametrize(
    ("found", "agree"),
    [
        ((1.0, 2.0, 3.0), True),
        ((1.0 + 1e-5, 2.0 - 1e-5, 3.0), True),
        ((1.0, 2.0, 9.0), True),  # a lane on its way to diverge
        ((1.0, 2.1, 9.0), False),
        ((1.01, 2.02, 3.03), False),
        ((1.0, torch.nan, torch.nan), False),
    ],
)
def test_most_lanes_have_to_agree(found: tuple[float, ...], agree: bool) -> None:
    assert _agree(_ends(*found), _ends(1.0, 2.0, 3.0)) is agree


@pytest.mark.parametrize(
    ("rounded", "agree"),
    [
        ((1.02, 2.02, 3.0), True),
        ((0.98, 2.0, 2.98), True),
        ((1.02, 2.0, 3.0), False),  # two lanes are sure of where they go
        ((1.002, 2.002, 3.002), False),
        ((1.5, 2.5, 3.002), False),  # two have no say
        ((1.5, 2.5, 3.5), True),  # nobody is sure of anything
        ((torch.nan, torch.inf, 3.002), False),
    ],
)
def test_a_lane_may_be_off_as_far_as_rounding_takes_it(rounded: tuple[float, ...], agree: bool) -> None:
    assert _agree(_ends(1.03, 2.03, 3.03), _ends(1.0, 2.0, 3.0), _ends(*rounded)) is agree


def test_lanes_that_diverged_either_way_agree_and_sums_have_to() -> None:
    expected = _ends(torch.nan, torch.inf, 3.0)
    assert _agree(expected, expected)
    theta, sums = expected
    assert not _agree((theta, 1.1 * sums), expected)


def test_a_lane_that_never_moved_agrees_with_itself() -> None:
    expected = _ends(0.0, 0.0, 0.0)
    assert _agree(expected, expected)
    assert _agree(expected, expected, _ends(1e-6, torch.nan, 0.0))
    assert not _agree(_ends(0.1, 0.1, 0.0), expected)


def test_sums_may_be_off_as_far_as_the_way() -> None:
    expected = theta, sums = _ends(1.0, 2.0, 3.0)
    assert _agree((theta, sums + 1), expected)  # a sample
    assert not _agree((theta, sums + 3), expected)
    assert _agree((theta, 1.1 * sums), expected, (theta + 0.05 * theta, sums))
    assert not _agree((theta, torch.zeros_like(sums)), expected, (theta + 0.05 * theta, sums))
