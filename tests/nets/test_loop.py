"""A lane of a module equals the module alone; lanes do not see each other, nor the process around them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.engine.trainer import PackTrainer, generator
from lrwd_sweep.nets import ModuleNetwork, build
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.nets.randomness import Dropout, Noisy
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.task import Task
from tests.nets.conftest import SIZES, task

CELLS = [Cell(0.002, 1e-2), Cell(0.001, 0.1), Cell(0.0005, 0.0)]
ADAMW = Optimizer.parse("adamw")


def _network(name: str) -> ModuleNetwork:
    network = build(name, SIZES.shape, SIZES.classes, engine="loop")
    assert isinstance(network, ModuleNetwork)
    return network


def _lone(network: ModuleNetwork, seed: int) -> nn.Module:
    """The module as its maker builds it, with a lane's first parameters."""
    module = network.make().double()
    module.load_state_dict(network.init(generator(seed, "parameters")), strict=False)
    for part in module.modules():
        if isinstance(part, Noisy):
            part.noise = torch.Generator()
    return module


def _batches(splits: Splits, seed: int, request: Task) -> list[tuple[Tensor, Tensor]]:
    order = generator(seed, "data order")
    return [
        (splits.train.x[batch], splits.train.y[batch])
        for _ in range(request.epochs)
        for batch in torch.randperm(len(splits.train), generator=order).split(request.batch_size)  # type: ignore[no-untyped-call]
    ]


def _train_alone(module: nn.Module, cell: Cell, batches: list[tuple[Tensor, Tensor]], seed: int) -> None:
    """torch.optim.AdamW at a constant rate; random layers draw as a lane of that seed does."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=cell.lr, weight_decay=cell.weight_decay)
    stream = generator(seed, "noise")
    for part in module.modules():
        if isinstance(part, Noisy):
            part.noise = stream
    for x, y in batches:
        optimizer.zero_grad()
        functional.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@pytest.mark.parametrize("name", ["cnn-norm", "cnn", "resnet20", "shake26-2x32d"])
def test_lane_is_the_module_alone_under_torch_optim(name: str, tiny64: Splits) -> None:
    # 51 steps; three of Shake-Shake, which takes a second for each in float64
    epochs = 1 if name.startswith("shake") else 17
    request = task(name, epochs=epochs, schedule="fixed", engine="loop")
    cells = CELLS[:2]
    network = _network(name)
    trainer = PackTrainer(Optimizer.parse("adamw:lr-scaled"), request, cells, 3, tiny64)
    trials = trainer.run()
    for lane, cell in enumerate(cells):
        module = _lone(network, 3)
        _train_alone(module, cell, _batches(tiny64, 3, request), 3)
        alone = dict(module.named_parameters())
        assert trainer.arena.named.keys() == alone.keys()
        for part, value in trainer.arena.named.items():
            assert (value[lane] - alone[part]).abs().max() < 1e-10
        module.eval()
        with torch.no_grad():
            loss = functional.cross_entropy(module(tiny64.test.x), tiny64.test.y).item()
        assert trials[lane].metrics["test_loss"] == pytest.approx(loss, abs=1e-10)


@pytest.mark.parametrize("name", ["cnn-norm", "resnet20", "shake26-2x32d", "torchvision:shufflenet_v2_x0_5"])
def test_lane_keeps_every_bit_in_packs_of_any_size(name: str, tiny32: Splits) -> None:
    request = task(name, epochs=1, engine="loop")
    whole = PackTrainer(ADAMW, request, CELLS, 0, tiny32)
    trials = whole.run()
    for lane, cell in enumerate(CELLS):
        alone = PackTrainer(ADAMW, request, [cell], 0, tiny32)
        assert alone.run()[0].metrics == trials[lane].metrics
        assert torch.equal(alone.arena.theta[0], whole.arena.theta[lane])


@pytest.mark.parametrize("place", range(3))
def test_neighbours_of_a_diverged_lane_keep_every_bit(place: int, tiny32: Splits) -> None:
    request, sgd = task("cnn", epochs=3, engine="loop"), Optimizer.parse("sgdw")
    well = [Cell(0.1, 1e-3), Cell(0.02, 1e-2), Cell(0.05, 0.0)]
    mixed = [Cell(1e38, 1e-3) if lane == place else cell for lane, cell in enumerate(well)]
    with_ill, without = (PackTrainer(sgd, request, cells, 0, tiny32) for cells in (mixed, well))
    trials, expected = with_ill.run(), without.run()
    assert trials[place].status is Status.DIVERGED
    for lane in {0, 1, 2} - {place}:
        assert trials[lane] == expected[lane]
        assert torch.equal(with_ill.arena.theta[lane], without.arena.theta[lane])
        assert isinstance(with_ill.lanes, LoopLanes)
        assert isinstance(without.lanes, LoopLanes)
        for found, wanted in zip(
            with_ill.lanes.modules[lane].buffers(), without.lanes.modules[lane].buffers(), strict=True
        ):
            assert torch.equal(found, wanted)


class _Dropping(nn.Module):
    """A linear layer on inputs that are dropped at random."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = Dropout(0.5)
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(x.flatten(1)))
        return logits


def _lanes(network: ModuleNetwork, count: int) -> tuple[Arena, LoopLanes]:
    init = network.init(torch.Generator().manual_seed(0))
    arena = Arena.stack(init, count, device=torch.device("cpu"), dtype=torch.float32)
    lanes = network.lanes(arena.named, arena.named_grad, 16)
    assert isinstance(lanes, LoopLanes)
    return arena, lanes


def test_every_lane_of_a_seed_draws_the_same_and_every_step_anew(tiny32: Splits) -> None:
    _, lanes = _lanes(ModuleNetwork(_Dropping, (1, 8, 8), 4), 3)
    x, y = tiny32.train.x[:16], tiny32.train.y[:16]
    noise = [torch.Generator().manual_seed(5) for _ in range(3)]
    first, _ = lanes.gradient(x, y, noise)
    second, _ = lanes.gradient(x, y, noise)
    assert len(set(first.tolist())) == len(set(second.tolist())) == 1
    assert first[0] != second[0]


def test_draws_do_not_depend_on_the_global_generator_nor_move_it(tiny32: Splits) -> None:
    network = ModuleNetwork(_Dropping, (1, 8, 8), 4)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        _, lanes = _lanes(network, 1)
        noise = torch.Generator().manual_seed(5)
        found.append(lanes.gradient(tiny32.train.x[:16], tiny32.train.y[:16], [noise])[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*found)


def test_batches_from_inference_mode_are_taken(tiny32: Splits) -> None:
    arena, lanes = _lanes(_network("cnn-norm"), 2)
    noise = [torch.Generator(), torch.Generator()]
    x, y = tiny32.train.x[:16], tiny32.train.y[:16]
    lanes.gradient(x, y, noise)
    expected = arena.grad.clone()
    with torch.inference_mode():
        lanes.gradient(x.clone(), y.clone(), noise)
    assert torch.equal(arena.grad, expected)
    assert arena.grad.abs().sum() > 0


def test_prediction_changes_nothing(tiny32: Splits) -> None:
    arena, lanes = _lanes(_network("resnet20"), 2)
    before = [buffer.clone() for lane in lanes.modules for buffer in lane.buffers()]
    theta = arena.theta.clone()
    first = lanes.predictor().predict(tiny32.test.x)
    assert first.shape == (2, 4, 20)
    assert torch.equal(first, lanes.predictor().predict(tiny32.test.x))
    after = [buffer for lane in lanes.modules for buffer in lane.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(arena.theta, theta)


def test_initialisation_follows_from_the_seed_in_every_thread() -> None:
    network = _network("resnet20")

    def init(seed: int) -> Tensor:
        values = network.init(torch.Generator().manual_seed(seed)).values()
        return torch.cat([value.flatten() for value in values])

    expected = [init(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(init, range(6)))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch.equal(expected[0], expected[1])
