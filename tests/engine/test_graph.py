"""Steps as a program, and steps replayed from a recording, equal the host's steps bit for bit."""

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lrwd_sweep.data import Splits
from lrwd_sweep.engine import cost, graph
from lrwd_sweep.engine.graph import Capture, Program
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.job import Stopped
from lrwd_sweep.spec.task import Task
from tests.small import ADAMW, CPU, F64, pack, splits, task

pytestmark = pytest.mark.usefixtures("without_numba")

CELLS = [Cell(0.01, 1e-3), Cell(1e300, 0.1), Cell(0.002, 0.05)]  # the second diverges
TELLS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2", "item")


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(*tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A CUDA graph in the host's memory: it records the operators, and calls them again in place.

    Recording changes nothing, and refuses what CUDA refuses: to return a value to the host.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.own: dict[int, Tensor] = {}  # made here, by address; kept, so that none is used twice
        self.before: dict[int, tuple[Any, Any]] = {}  # address → storage, and its former value
        self.states: dict[torch.Generator, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.split(".")[0] in TELLS:
            raise RuntimeError(f"the host asked for a value: {func}")
        given = _tensors(args, kwargs)
        for tensor in given:
            if _place(tensor) not in self.own | self.before:
                storage = tensor.untyped_storage()
                self.before[_place(tensor)] = storage, storage.clone()  # type: ignore[no-untyped-call]
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Generator):
                self.states.setdefault(leaf, leaf.get_state())
        out = func(*args, **(kwargs or {}))
        self.own |= {_place(new): new for new in _tensors(out) if _place(new) not in map(_place, given)}
        self.calls.append((func, args, kwargs or {}, _tensors(out)))
        return out

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for storage, value in self.before.values():
            storage.copy_(value)
        for stream, state in self.states.items():
            stream.set_state(state)

    @torch.inference_mode()
    def replay(self) -> None:
        for func, args, kwargs, made in self.calls:
            for place, value in zip(made, _tensors(func(*args, **kwargs)), strict=True):
                if _place(place) != _place(value):
                    place.copy_(value)


@torch.inference_mode()
def record(program: Program, spoil: Callable[[Any], object] = lambda _: None) -> Callable[[int], None]:
    """Record as `graph.capture` does, in the host's memory; `spoil` every replay."""
    tapes, spoilt = dict[int, Tape](), weakref.ref(program)  # a program holds its recording
    for count in {program.size, 1}:
        with Tape() as tapes[count]:
            program.steps(count)

    def advance(count: int) -> None:
        tapes[count].replay()
        spoil(spoilt())

    return advance


def _task(net: str = "mlp", **options: object) -> Task:
    return task(net, **{"schedule": "restarts", **options})  # type: ignore[arg-type]


def _on_device(name: str, of: Task, capture: Capture | None, data: Splits | None = None) -> PackTrainer:
    trainer = pack(name, of, CELLS, data=data or splits(F64))
    trainer.on_host, trainer.record = False, capture
    return trainer


def _trained(trainer: PackTrainer) -> tuple[str, bool]:
    """Train; return all trials as text, so that NaN equals NaN, and whether a recording was replayed."""
    seen: list[Any] = []
    found = repr(trainer.run(lambda *_: seen.append(trainer.program and trainer.program.replay)))
    assert trainer.program is None
    return found, None not in seen


def _check(name: str, of: Task, capture: Capture | None = record, recorded: bool = True) -> None:
    """Assert that every number equals that of the host's steps, and that a recording is used if made."""
    host, device = pack(name, of, CELLS, data=splits(F64)), _on_device(name, of, capture)
    expected, case = repr(host.run()), f"{name} {of.net} {of.engine} batch {of.batch_size}"
    assert _trained(device) == (expected, recorded and capture is not None), case
    assert torch.equal(*(one.arena.theta.nan_to_num(0, 0, 0) for one in (device, host))), case


def test_updates_equal_those_of_the_host() -> None:
    trials = _on_device("sgd", _task(), None).run()
    assert [trial.status is Status.DIVERGED for trial in trials] == [False, True, False]
    for name in ("sgd", "amsgradw:lr-scaled", "rmspropw:corrected", "adagradw:fixed:normalized", "sgdp"):
        _check(name, _task())
    for name in ("adamw", "sgdp"):
        _check(name, _task(), None)
    for name in ("adoptw", "schedule-freew", "muonw", "ndadam", "adamw:lr-scaled:cautious"):
        _check(name, _task(decay_schedule="linear"))


def test_networks_and_augmentation_equal_those_of_the_host() -> None:
    crops: dict[str, object] = {"augment": "crop-flip-cutout"}  # new numbers in every step
    every: dict[str, object] = {"swa": 2, "ema": 0.5, "ensemble": 2, "sam": 0.1, "t_0": 1, "t_mult": 1}
    every |= {"epochs": 3, "augment": "crop-flip"}
    own = "tests.nets.awkward:"
    for net, engine, fields, recorded in (
        ("mlp-norm", "native", {}, True),
        ("mlp", "vmap", crops, True),
        ("cnn", "loop", {}, True),
        ("cnn", "native", every, True),
        ("cnn-norm", "loop", every, True),
        (f"{own}Dropping", "vmap", {}, True),
        (f"{own}Dropping", "loop", {}, True),
        (f"{own}Dropping", "vmap", every, False),
        (f"{own}LookingAtValues", "loop", {}, False),
    ):
        _check("sgd", _task(net, engine=engine, **fields), recorded=recorded)
    _check("sgd", _task(f"{own}Dropping", engine="vmap", **every), None)


def test_any_number_of_steps_is_recorded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for batch_size, recorded in ((5, 1), (5, 3), (8, 8), (8, 3), (16, 1), (16, 8), (20, 1)):
        monkeypatch.setattr(graph, "RECORDED", recorded)  # of 9, 6, 3 and 2 steps; 2 are not recorded
        _check("sgdw", _task(epochs=3, batch_size=batch_size), recorded=batch_size < 20)


def _refuses(program: Program) -> Callable[[int], None]:
    program.streams[0].manual_seed(5)  # as a recording that fails half way leaves it
    raise RuntimeError("operation not permitted when stream is capturing")


BROKEN: dict[str, Capture] = {
    "refuses": _refuses,
    "fails as it runs": partial(record, spoil=lambda program: 1 / 0),
    "trains on one batch": partial(record, spoil=lambda program: program.k.zero_()),
    "stays at one row of the table": partial(record, spoil=lambda program: program.t.zero_()),
    "draws the same numbers": partial(record, spoil=lambda program: program.streams[1].manual_seed(0)),
    "moves nothing": lambda program: lambda count: None,
    "sums nothing": partial(record, spoil=lambda program: program.total.zero_()),
    "ends in NaN": partial(record, spoil=lambda program: program.theta.fill_(torch.nan)),
}


def test_a_recording_that_differs_is_dropped() -> None:
    of = _task(augment="crop-flip", warmup=1)
    plain = _trained(_on_device("adamw", of, None, splits()))
    for fault, broken in BROKEN.items():
        assert _trained(_on_device("adamw", of, broken, splits())) == plain, fault


def test_a_pack_frees_its_memory_without_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Program]] = []

    class Watched(Program):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            assert all(program() is None for program in made)
            super().__init__(*arguments, **options)
            made.append(weakref.ref(self))

    monkeypatch.setattr("lrwd_sweep.engine.pack.Program", Watched)
    gc.disable()
    try:
        trainer = _on_device("adamw", _task(), record)
        trainer.run()
        theta = weakref.ref(trainer.arena.theta)
        del trainer
        assert (len(made), made[2](), theta()) == (3, None, None)
    finally:
        gc.enable()


def test_only_known_networks_and_losses_are_recorded_on_a_gpu() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert (graph.recorder(_task(), cuda), graph.recorder(_task(), cpu)) == (graph.capture, None)
    for fields in ({"net": "tests.nets.awkward:Dropping"}, {"loss": "tests.nets.awkward:loss"}):
        assert graph.recorder(_task(**fields), cuda) is None, fields


def test_training_stops_between_two_steps() -> None:
    asked, seen = iter([False] * 3 + [True] * 100), list[int]()
    with pytest.raises(Stopped):
        _on_device("adamw", _task(epochs=3), record).run(lambda epoch, _: seen.append(epoch), asked.__next__)
    assert seen == [1]


def test_lanes_that_rounding_takes_far_have_no_vote() -> None:
    def ends(*ways: float) -> tuple[Tensor, Tensor]:
        return torch.ones(3, 5) + torch.tensor(ways).unsqueeze(1), torch.full((3, 3), 1e3)

    for rounded, agree in (
        ((1.02, 2.02, 3.0), True),
        ((1.02, 2.0, 3.0), False),  # rounding moves two lanes less than they differ
        ((1.5, 2.5, 3.002), False),  # two lanes have no vote
        ((1.5, 2.5, 3.5), True),  # no lane has a vote
    ):
        found = ends(1, 2, 3), ends(*rounded), ends(1.03, 2.03, 3.03)
        assert graph._agree(torch.ones(5), *found) is agree, rounded


def test_steps_on_a_device_are_timed_as_they_train(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[bool] = []

    class OnDevice(PackTrainer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.on_host, self.record = False, record

        def prepared(self, shuffled: Tensor) -> Program:
            program = super().prepared(shuffled)
            replayed.append(program.replay is not None)
            return program

    monkeypatch.setattr(cost, "PackTrainer", OnDevice)
    few = Task(epochs=1, batch_size=130)  # fewer steps than are timed
    assert min(cost.timed(ADAMW, few, 2, 0.05, CPU, 1)) > 0
    assert replayed == [True]
