"""Small tasks, data and packs that tests of training share: images of 8×8, noise on every pixel."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from lrwd_sweep.data import Split, Splits, load
from lrwd_sweep.engine.lane_state import generator
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.lab.references import lone_rule
from lrwd_sweep.nets import network
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import call
from lrwd_sweep.nets.randomness import Noisy
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import POSITION, DataSet, Input
from lrwd_sweep.spec.task import Task

CPU = torch.device("cpu")
F32, F64 = torch.float32, torch.float64
ADAMW, SGDW = Optimizer.parse("adamw"), Optimizer.parse("sgdw")
SIZES = DataSet(train=48, validation=20, test=20, classes=4, shape=(1, 8, 8))
WINDOW = Input((6,), "int64", 10)  # of tokens, each the class of the position before
TOKENS = DataSet(48, 20, 20, 11, (6,), target=POSITION, target_shape=(6,), inputs=(WINDOW,))
CELLS = [Cell(0.004, 1e-2), Cell(0.001, 0.1), Cell(0.0005, 0.0)]  # for Adam
WELL = [Cell(0.1, 1e-3), Cell(0.02, 1e-2), Cell(0.05, 0.0)]  # for SGD
ILL = Cell(1e38, 1e-3)  # the loss overflows within a few steps
WAYS = [  # every way to train: network and engine
    *[(net, "native") for net in ("mlp-norm", "mlp", "cnn-norm", "cnn")],
    *[(net, "loop") for net in ("mlp-norm", "cnn-norm", "cnn", "tests.nets.awkward:Normed")],
    *[(net, "vmap") for net in ("mlp", "embed-norm", "cnn")],
    *[(f"tests.nets.awkward:{net}", "vmap") for net in ("Normed", "Dropping")],
]


def task(net: str = "mlp", epochs: int = 2, **options: object) -> Task:
    return Task(**{"net": net, "epochs": epochs, "batch_size": 16, "sizes": SIZES, **options})  # type: ignore[arg-type]


returned: list[Any] = []  # what `data` calls, or returns


def data() -> Any:
    return returned[-1]() if callable(returned[-1]) else returned[-1]


class Items(Dataset[Any]):
    """Columns whose items are changed, as by a transform."""

    def __init__(self, *columns: torch.Tensor, change: Any = lambda *item: item) -> None:
        self.columns, self.change = columns, change

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, k: int) -> Any:
        return self.change(*(column[k] for column in self.columns))


def loaded(task: Task) -> Splits:
    return load(task.data, task.data_set, standardize=task.standardize, stream=task.stream)


@cache
def splits(dtype: torch.dtype = F32, shape: tuple[int, ...] = SIZES.shape) -> Splits:
    stream = torch.Generator().manual_seed(0)
    centres = torch.randn(SIZES.classes, *shape, generator=stream, dtype=F64)

    def split(count: int) -> Split:
        y = torch.arange(count) % SIZES.classes
        return Split(centres[y] + torch.randn(count, *shape, generator=stream, dtype=F64), y)

    return Splits(split(SIZES.train), split(SIZES.validation), split(SIZES.test)).to(CPU, dtype)


@cache
def token_splits(dtype: torch.dtype = F32) -> Splits:
    stream = torch.Generator().manual_seed(0)
    drawn = [torch.randint(11, (count, 7), generator=stream) for count in (48, 20, 20)]
    return Splits(*(Split(x[:, :-1], x[:, 1:]) for x in drawn)).to(CPU, dtype)


def pack(
    optimizer: str, of: Task, cells: Sequence[Cell] = CELLS, *, seed: int = 0, data: Splits | None = None
) -> PackTrainer:
    return PackTrainer(Optimizer.parse(optimizer), of, cells, seed, data or splits())


def begun(of: Task) -> nn.Module:
    """Make a task's network as that of seed 3 before training, in float64."""
    net = network(of)
    assert isinstance(net, ModuleNetwork)
    return net._seeded(generator(3, "parameters")).double().train()


def loss_alone(output: Any, y: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of logits (B, …, C), or of those among the outputs."""
    output = output[1] if isinstance(output, tuple) else output
    output = output["logits"] if isinstance(output, dict) else output
    return cross_entropy(output.flatten(0, -2), y.flatten())


def train_alone(
    module: nn.Module, of: Task, cell: Cell, train: Split, loss: Any = loss_alone, name: str = ""
) -> list[float]:
    """Train on batches and draws of seed 3 by an optimizer's reference, or by torch.optim.AdamW at η = 1.

    Returns the loss of every step.
    """
    losses, order, noise = list[float](), generator(3, "data order"), generator(3, "noise")
    for layer in module.modules():
        if isinstance(layer, Noisy):
            layer.noise = noise
    values, (lr, decay) = list(module.parameters()), (cell.lr, cell.weight_decay)
    rules = [lone_rule(Optimizer.parse(name), of, lr, decay) for _ in values if name]
    adamw = torch.optim.AdamW(values, lr=lr, weight_decay=decay)
    for t in range(of.steps):
        if t % of.steps_per_epoch == 0:
            batches = iter(torch.randperm(len(train), generator=order).split(of.items_per_step))  # type: ignore[no-untyped-call]
        parts = map(train.batch, next(batches).split(of.batch_size))
        mean = torch.stack([loss(call(module, x), y) for x, y in parts]).mean()
        losses.append(mean.item())
        module.zero_grad()
        mean.backward()  # type: ignore[no-untyped-call]
        if of.clip_norm is not None:
            assert nn.utils.clip_grad_norm_(values, of.clip_norm) > of.clip_norm or t
        if not name:
            adamw.step()
        eta, n = of.timetable.eta(t), of.timetable.steps_of_cycle(t)
        with torch.no_grad():
            for value, rule in zip(values, rules, strict=bool(name)):
                value.copy_(rule(value, value.grad, eta, t + 1, n))
    return losses
