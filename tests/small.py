"""Small tasks, data and packs that tests of training share: images of 8×8, noise on every pixel."""

from collections.abc import Sequence
from functools import cache

import torch

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task

CPU = torch.device("cpu")
F32, F64 = torch.float32, torch.float64
ADAMW, SGDW = Optimizer.parse("adamw"), Optimizer.parse("sgdw")
SIZES = DataSet(train=48, validation=20, test=20, classes=4, shape=(1, 8, 8))
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
    """Return a task of three steps of 16 images per epoch."""
    return Task(**{"net": net, "epochs": epochs, "batch_size": 16, "sizes": SIZES, **options})  # type: ignore[arg-type]


@cache
def splits(dtype: torch.dtype = F32, shape: tuple[int, ...] = SIZES.shape) -> Splits:
    stream = torch.Generator().manual_seed(0)
    centres = torch.randn(SIZES.classes, *shape, generator=stream, dtype=F64)

    def split(count: int) -> Split:
        y = torch.arange(count) % SIZES.classes
        return Split(centres[y] + torch.randn(count, *shape, generator=stream, dtype=F64), y)

    return Splits(split(SIZES.train), split(SIZES.validation), split(SIZES.test)).to(CPU, dtype)


def pack(
    optimizer: str, of: Task, cells: Sequence[Cell] = CELLS, *, seed: int = 0, data: Splits | None = None
) -> PackTrainer:
    return PackTrainer(Optimizer.parse(optimizer), of, cells, seed, data or splits())
