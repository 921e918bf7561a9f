"""A lane equals a lone module under torch.optim, does not see its neighbours, and repeats bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.engine.choice import chosen, obstacle
from lrwd_sweep.engine.pack import PackTrainer, generator
from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets import Lanes, ModuleNetwork, network
from lrwd_sweep.nets.cnn import CnnLanes
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.nets.modules import VmapLanes
from lrwd_sweep.nets.randomness import Noisy, seeded
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task
from tests.nets import awkward
from tests.nets.conftest import ADAMW, SGDW, WAYS, task, tiny_splits

CPU = torch.device("cpu")
CELLS = [Cell(0.004, 1e-2), Cell(0.001, 0.1), Cell(0.0005, 0.0)]
WELL = [Cell(0.1, 1e-3), Cell(0.02, 1e-2), Cell(0.05, 0.0)]
AWKWARD = (*awkward.VECTORISED, *awkward.LOOPED)


def _awkward(kind: type[nn.Module], engine: str = "loop", epochs: int = 17, **options: Any) -> Task:
    return task(f"tests.nets.awkward:{kind.__name__}", epochs, schedule="fixed", engine=engine, **options)


def _logits(output: Any) -> Tensor:
    """Pick the logits of any kind of output."""
    if isinstance(output, tuple):
        output = output[1]
    if isinstance(output, dict):
        output = output["logits"]
    found = getattr(output, "logits", output)
    assert isinstance(found, Tensor)
    return found


def _train_alone(request: Task, cell: Cell, splits: Splits, kind: type[nn.Module] | None) -> nn.Module:
    """Train the module by torch.optim.AdamW; random layers draw as a lane of seed 3 does."""
    made = network(request)
    assert isinstance(made, ModuleNetwork)
    drops = kind and any(isinstance(layer, nn.Dropout) for layer in kind().modules())
    with seeded(int(torch.randint(2**62, (), generator=generator(3, "parameters")))):
        module = made.make() if kind is None or drops else kind()  # `make` replaces dropout
        if kind is awkward.Lazy:
            module.eval()(torch.zeros(2, 1, 8, 8))
    module.double().train()
    noise, order = generator(3, "noise"), generator(3, "data order")
    for layer in module.modules():
        if isinstance(layer, Noisy):
            layer.noise = noise
    optimizer = torch.optim.AdamW(module.parameters(), lr=cell.lr, weight_decay=cell.weight_decay)
    for _ in range(request.epochs):
        for batch in torch.randperm(len(splits.train), generator=order).split(request.batch_size):  # type: ignore[no-untyped-call]
            x, y = splits.train.batch(batch)
            optimizer.zero_grad()
            functional.cross_entropy(_logits(module(x)), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return module.eval()


def _assert_lanes_equal_lone_modules(
    request: Task, splits: Splits, kind: type[nn.Module] | None = None, lanes: int = 2
) -> None:
    trainer = PackTrainer(Optimizer.parse("adamw:lr-scaled"), request, CELLS[:lanes], 3, splits)
    trials = trainer.run()
    for lane, cell in enumerate(CELLS[:lanes]):
        module = _train_alone(request, cell, splits, kind)
        parameters = dict(module.named_parameters())
        assert kind or trainer.arena.named.keys() == parameters.keys()
        for name, value in trainer.arena.named.items():
            assert (value[lane] - parameters[name]).abs().max() < 1e-10, (request.net, name)
        for name, split in (("val", splits.validation), ("test", splits.test)):
            with torch.no_grad():
                loss = functional.cross_entropy(_logits(module(split.x.clone())), split.y).item()
            assert trials[lane].metrics[f"{name}_loss"] == pytest.approx(loss, abs=1e-10), request.net


@pytest.mark.parametrize(
    ("net", "epochs", "lanes"),
    [("cnn-norm", 17, 2), ("cnn", 17, 2), ("resnet20", 4, 2), ("shake26-2x32d", 1, 1)],
)
def test_lane_of_a_catalog_network_equals_the_lone_module_under_torch_optim(
    net: str, epochs: int, lanes: int, tiny64: Splits
) -> None:
    request = task(net, epochs, schedule="fixed", engine="loop")
    _assert_lanes_equal_lone_modules(request, tiny64, lanes=lanes)


@pytest.mark.parametrize("kind", AWKWARD)
def test_lane_of_a_user_network_equals_the_lone_module_under_torch_optim(
    kind: type[nn.Module], tiny64: Splits
) -> None:
    request = _awkward(kind, "vmap" if kind in awkward.VECTORISED else "loop")
    assert request.steps == 51
    _assert_lanes_equal_lone_modules(request, tiny64, kind)


def test_vmap_equals_the_loop_or_is_refused() -> None:
    for kind in AWKWARD:
        if kind in awkward.VECTORISED:
            assert obstacle(_awkward(kind), CPU) == "", kind
            continue
        complaint = rf"engine='vmap': .*:{kind.__name__} {awkward.LOOPED[kind]} \(.*\); choose auto or loop"
        with pytest.raises(UsageError, match=complaint):
            chosen(_awkward(kind, "vmap"), CPU)
    binary = _awkward(awkward.Tied, loss="tests.nets.losses:binary")  # with float32 targets
    assert obstacle(binary, CPU) == ""
    assert chosen(replace(binary, engine="auto"), CPU).engine in ("loop", "vmap")
    assert obstacle(task("cnn", precision="bfloat16"), CPU) == ""


def test_native_vmap_and_loop_are_one_network(tiny64: Splits) -> None:
    cases = [("mlp-norm", (1, 8, 8)), ("mlp", (1, 8, 8))]
    cases += [(net, shape) for net in ("cnn-norm", "cnn") for shape in ((1, 8, 8), (3, 9, 12), (2, 16, 10))]
    for net, shape in cases:
        engines = ("native", "vmap", "loop") if net.startswith("mlp") else ("native", "loop")
        splits = tiny_splits(torch.float64, shape)
        sizes = DataSet(48, 20, 20, 4, shape)
        trainers = [
            PackTrainer(ADAMW, task(net, 3, engine=engine, sizes=sizes), CELLS, 1, splits)
            for engine in engines
        ]
        assert isinstance(trainers[-1].lanes, LoopLanes)
        assert isinstance(trainers[0].lanes, CnnLanes) is net.startswith("cnn")
        expected, *others = [trainer.run() for trainer in trainers]
        for trainer, trials in zip(trainers[1:], others, strict=True):
            for name, value in trainers[0].arena.named.items():
                assert (value - trainer.arena.named[name]).abs().max() < 1e-9, (net, shape, name)
            for one, other in zip(expected, trials, strict=True):
                assert one.metrics == pytest.approx(other.metrics, abs=1e-9), (net, shape)
                for name, curve in one.curves.items():
                    assert curve == pytest.approx(other.curves[name], abs=1e-9), (net, shape, name)


def _buffers(lanes: Lanes, lane: int) -> list[Tensor]:
    if isinstance(lanes, VmapLanes):
        return [value[lane] for value in lanes.buffers.values()]
    return list(lanes.modules[lane].buffers()) if isinstance(lanes, LoopLanes) else []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("net", "engine"), WAYS)
def test_neighbours_of_a_diverged_lane_keep_every_bit(
    net: str, engine: str, precision: str, tiny32: Splits
) -> None:
    request = task(net, engine=engine, precision=precision)
    without = PackTrainer(SGDW, request, WELL, 0, tiny32)
    expected = without.run()
    for place in range(3):
        mixed = [Cell(1e38, 1e-3) if lane == place else cell for lane, cell in enumerate(WELL)]
        with_ill = PackTrainer(SGDW, request, mixed, 0, tiny32)
        trials = with_ill.run()
        assert trials[place].status is Status.DIVERGED
        for lane in {0, 1, 2} - {place}:
            assert trials[lane] == expected[lane], (place, lane)
            assert torch.equal(with_ill.arena.theta[lane], without.arena.theta[lane]), (place, lane)
            pairs = zip(_buffers(with_ill.lanes, lane), _buffers(without.lanes, lane), strict=True)
            assert all(torch.equal(*pair) for pair in pairs), (place, lane)


def _assert_same_bits(request: Task, cells: list[Cell], sizes: Sequence[int], splits: Splits) -> None:
    whole = PackTrainer(ADAMW, request, cells, 0, splits)
    trials = whole.run()
    for size in sizes:
        few = PackTrainer(ADAMW, request, cells[-size:], 0, splits)
        assert few.run() == trials[-size:], (request.net, size)
        assert torch.equal(few.arena.theta, whole.arena.theta[-size:]), (request.net, size)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("net", "engine"), WAYS)
def test_lane_keeps_every_bit_in_packs_of_any_size(
    net: str, engine: str, precision: str, tiny32: Splits
) -> None:
    request = task(net, engine=engine, precision=precision)
    cells = [Cell(2.0 ** (-6 - k / 4), 0.01) for k in range(17)]
    # vmap is one program for each number of lanes: only repetition gives the same bits
    _assert_same_bits(request, cells, (17,) if engine == "vmap" else (1, 2, 5, 16), tiny32)


@pytest.mark.parametrize(
    "net", ["resnet20", "shake26-2x32d", "torchvision:shufflenet_v2_x0_5", "torchvision:mobilenet_v3_small"]
)
def test_lane_of_a_random_or_large_network_keeps_every_bit_in_any_pack(net: str, tiny32: Splits) -> None:
    request = task(net, 1, engine="loop")
    _assert_same_bits(request, CELLS[:2], (1,), tiny32)
    if "mobilenet" in net:  # which has dropout; two lanes of one cell are equal
        trainer = PackTrainer(ADAMW, request, [CELLS[0]] * 2, 0, tiny32)
        trainer.run()
        assert torch.equal(*trainer.arena.theta)


def test_frozen_parameters_depend_only_on_the_seed(tiny32: Splits) -> None:
    for engine in ("loop", "vmap"):
        request = _awkward(awkward.Frozen, engine, 1)
        losses = []
        for seed in (0, 0, 1):
            trials = PackTrainer(ADAMW, request, [CELLS[0]] * 2, seed, tiny32).run()
            losses.append([trial.metrics["val_loss"] for trial in trials])
        assert losses[0] == losses[1], engine
        assert losses[0][0] == losses[0][1] != losses[2][0], engine


def test_only_trained_parameters_are_in_the_arena() -> None:
    head = {"head.weight", "head.bias"}
    for kind, trained in (
        (awkward.Frozen, head),
        (awkward.Unused, head),
        (awkward.AuxiliaryOutput, head),
        (awkward.Tied, head | {"down.weight", "up.weight", "up.bias", "again.bias"}),
    ):
        assert set(network(_awkward(kind)).shapes) == trained, kind


def _steps(lanes: Lanes, split: Split, seed: int, count: int = 1) -> list[Tensor]:
    noise = [torch.Generator().manual_seed(seed) for _ in range(3)]
    return [lanes.gradient(split.x[:16], split.y[:16], noise)[0].clone() for _ in range(count)]


def test_lanes_of_a_seed_draw_the_same_and_leave_the_global_generator(tiny32: Splits) -> None:
    request = _awkward(awkward.Dropping)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        lanes = PackTrainer(ADAMW, request, [CELLS[0]] * 3, 0, tiny32).lanes
        found.append(_steps(lanes, tiny32.train, 5, 2))
        assert torch.equal(torch.get_rng_state(), before)
    first, second = found[0]
    assert len(set(first.tolist())) == len(set(second.tolist())) == 1
    assert first[0] != second[0]
    assert torch.equal(first, found[1][0])


def test_batches_of_inference_mode_are_accepted(tiny32: Splits) -> None:
    trainer = PackTrainer(ADAMW, task("cnn-norm", engine="loop"), CELLS, 0, tiny32)
    _steps(trainer.lanes, tiny32.train, 0)
    expected = trainer.arena.grad.clone()
    with torch.inference_mode():
        _steps(trainer.lanes, tiny32.to(CPU, torch.float32).train, 0)
    assert torch.equal(trainer.arena.grad, expected)
    assert expected.abs().sum() > 0


def test_prediction_changes_nothing(tiny32: Splits) -> None:
    for net, engine in (("resnet20", "loop"), ("tests.nets.awkward:Normed", "vmap")):
        trainer = PackTrainer(ADAMW, task(net, 1, engine=engine), CELLS, 0, tiny32)
        trainer.run()

        def state(trainer: PackTrainer = trainer) -> list[Tensor]:
            buffers = [one.clone() for lane in range(3) for one in _buffers(trainer.lanes, lane)]
            return [trainer.arena.theta.clone(), *buffers]

        before = state()
        first = trainer.lanes.predictor().predict(tiny32.test.x)
        assert first.shape == (3, 4, 20)
        assert torch.equal(first, trainer.lanes.predictor().predict(tiny32.test.x)), net
        assert all(torch.equal(*pair) for pair in zip(before, state(), strict=True)), net


def test_initialisation_follows_from_the_seed_in_every_thread() -> None:
    made = network(task("resnet20", engine="loop"))

    def init(seed: int) -> Tensor:
        values = made.init(torch.Generator().manual_seed(seed)).values()
        return torch.cat([value.flatten() for value in values])

    expected = [init(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(init, range(6)))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch.equal(expected[0], expected[1])


def test_packs_share_no_module(tiny32: Splits) -> None:
    layers = []
    for _ in range(2):
        lanes = PackTrainer(SGDW, task("cnn", engine="vmap"), WELL, 0, tiny32).lanes
        assert isinstance(lanes, VmapLanes)
        layers.append(set(lanes.module.modules()))
    assert not layers[0] & layers[1]
