"""A lane of the loop equals the lone module; lanes do not see each other, and user code cannot break that."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.engine.trainer import PackTrainer, generator
from lrwd_sweep.errors import UsageError
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
def test_lane_equals_the_lone_module_under_torch_optim(name: str, tiny64: Splits) -> None:
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


def test_neighbours_of_a_diverged_lane_keep_every_bit(tiny32: Splits) -> None:
    request, sgd = task("cnn", epochs=3, engine="loop"), Optimizer.parse("sgdw")
    well = [Cell(0.1, 1e-3), Cell(0.02, 1e-2), Cell(0.05, 0.0)]
    without = PackTrainer(sgd, request, well, 0, tiny32)
    expected = without.run()
    assert isinstance(without.lanes, LoopLanes)
    for place in range(3):
        mixed = [Cell(1e38, 1e-3) if lane == place else cell for lane, cell in enumerate(well)]
        with_ill = PackTrainer(sgd, request, mixed, 0, tiny32)
        trials = with_ill.run()
        assert isinstance(with_ill.lanes, LoopLanes)
        assert trials[place].status is Status.DIVERGED
        for lane in {0, 1, 2} - {place}:
            assert trials[lane] == expected[lane], (place, lane)
            assert torch.equal(with_ill.arena.theta[lane], without.arena.theta[lane]), (place, lane)
            buffers = (one.modules[lane].buffers() for one in (with_ill.lanes, without.lanes))
            assert all(torch.equal(*pair) for pair in zip(*buffers, strict=True)), (place, lane)


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


def test_lanes_of_a_seed_draw_the_same_and_steps_draw_differently(tiny32: Splits) -> None:
    _, lanes = _lanes(ModuleNetwork(_Dropping, (1, 8, 8), 4), 3)
    x, y = tiny32.train.x[:16], tiny32.train.y[:16]
    noise = [torch.Generator().manual_seed(5) for _ in range(3)]
    first, _ = lanes.gradient(x, y, noise)
    second, _ = lanes.gradient(x, y, noise)
    assert len(set(first.tolist())) == len(set(second.tolist())) == 1
    assert first[0] != second[0]


def test_draws_neither_use_nor_move_the_global_generator(tiny32: Splits) -> None:
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


def test_batches_of_inference_mode_are_accepted(tiny32: Splits) -> None:
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


WELL = [Cell(0.1, 1e-3), Cell(0.02, 1e-2)]
SGDW = Optimizer.parse("sgdw")


class Two(nn.Module):
    """Two heads, both of which train."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 4), nn.Linear(64, 4)
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        return self.logits(x.flatten(1))

    def logits(self, x: Tensor) -> Tensor:
        found: Tensor = self.a(x) + self.b(x)
        return found


class Late(Two):
    """The second from the fifth step on."""

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) if self.steps > 4 else self.a(x)


class Early(Two):
    """The second until the fifth step."""

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) if self.steps < 5 else self.a(x)


class Thawing(Two):
    """The second, from the fifth step on."""

    def logits(self, x: Tensor) -> Tensor:
        self.b.requires_grad_(self.steps > 4)
        return super().logits(x)


class ByValues(Two):
    """One of them, as the inputs are."""

    def logits(self, x: Tensor) -> Tensor:
        head = self.a if x.min() >= 0 else self.b
        found: Tensor = head(x)
        return found


class Assigning(Two):
    """Normalised weights, each time in new memory."""

    def logits(self, x: Tensor) -> Tensor:
        self.b.weight.data = functional.normalize(self.b.weight.data)
        return super().logits(x)


class AssigningToEvaluate(Assigning):
    def logits(self, x: Tensor) -> Tensor:
        return Two.logits(self, x) if self.training else super().logits(x)


UNLIKE_TORCH = (
    (Late, "loop", r"b\.weight of Late has a gradient, and had none .*; use it in every step"),
    (Late, "vmap", r"b\.weight of Late has a gradient, and had none"),
    (Thawing, "loop", r"b\.weight of Thawing has a gradient, and had none"),
    (Early, "loop", r"b\.weight of Early has no gradient at a step, .*; use it in every step"),
    (Early, "vmap", r"b\.weight of Early has no gradient at a step"),
    (ByValues, "loop", r"a\.weight of ByValues has no gradient at a step"),
    (Assigning, "loop", r"b\.weight of Assigning is not where .* by \.data\.copy_\(\)"),
    (AssigningToEvaluate, "loop", r"b\.weight of AssigningToEvaluate is not where"),
)


def test_parameters_that_would_not_train_as_under_torch_optim_are_named(tiny32: Splits) -> None:
    for kind, engine, complaint in UNLIKE_TORCH:
        trainer = PackTrainer(SGDW, task(f"{__name__}:{kind.__name__}", engine=engine), WELL, 0, tiny32)
        with pytest.raises(UsageError, match=rf"the parameter {complaint}"):  # which names the class
            trainer.run()


class Finite(Two):
    """Raises if a number is not finite."""

    def logits(self, x: Tensor) -> Tensor:
        h = super().logits(x)
        masked = torch.where(x[:, :4] < 0, -torch.inf, h).softmax(1).nan_to_num()
        if not h.isfinite().all():
            raise ValueError("not finite")
        return h + 0.1 * masked


class FiniteToEvaluate(Two):
    """Raises so only in evaluation."""

    def logits(self, x: Tensor) -> Tensor:
        h = super().logits(x)
        if not self.training and not h.isfinite().all():
            raise ValueError("not finite")
        return h


@pytest.mark.parametrize("kind", [Finite, FiniteToEvaluate])
def test_lane_that_raises_as_it_diverges_leaves_its_neighbours(kind: type[nn.Module], tiny32: Splits) -> None:
    train = partial(PackTrainer, SGDW, task(f"{__name__}:{kind.__name__}", engine="loop"))
    trials = train([WELL[0], Cell(1e38, 1e-3), WELL[1]], 0, tiny32).run()
    assert trials[1].status is Status.DIVERGED
    assert [trials[0], trials[2]] == train(WELL, 0, tiny32).run()


class Faulty(Finite):
    """Raises on finite numbers."""

    def logits(self, x: Tensor) -> Tensor:
        if self.steps > 4:
            raise ValueError("a mistake")
        return super().logits(x)


def test_error_in_a_finite_lane_is_raised(tiny32: Splits) -> None:
    trainer = PackTrainer(SGDW, task(f"{__name__}:Faulty", engine="loop"), WELL, 0, tiny32)
    with pytest.raises(ValueError, match="a mistake"):
        trainer.run()
