"""Streamed data: the same bits as data in memory; random transforms as of a lone run that seeds alike."""

import itertools
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from lrwd_sweep.data import Splits, StreamedSplit
from lrwd_sweep.data.splits import load_splits, save_splits
from lrwd_sweep.data.user_data import completed, reopened
from lrwd_sweep.engine.lane_state import generator
from lrwd_sweep.errors import DataError
from lrwd_sweep.nets.randomness import seeded
from lrwd_sweep.spec.task import Task
from tests import small
from tests.engine.test_checkpoint import begun, place, run
from tests.refusal import assert_raises
from tests.small import CELLS, CPU, F64, Items, loaded, pack, returned

HERE, NAME = "tests.engine.test_streaming", "adamw:lr-scaled"


def _noise(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # of all three generators
    return x + 0.3 * (torch.randn_like(x) + np.random.rand() + random.random()), y


class Linear(nn.Linear):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__(math.prod(input_shape), num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1).to(self.weight.dtype))


def share(outputs: Tensor, y: Tensor) -> Tensor:
    assert len(outputs) in (300, 20)  # whole splits
    return (outputs > y).double().mean()


def _numbers(n: int) -> Items:
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(n))
    return Items(x, x[:, 0] - 2 * x[:, 1])


def _classes(dtype: torch.dtype = torch.float32, **change: Any) -> Items:
    x, _ = _numbers(44).columns
    return Items(x.to(dtype), x[:, :3].argmax(1), **change)


def _bytes(n: int) -> Items:
    stream = torch.Generator().manual_seed(n)
    return Items(torch.randint(256, (n, 3, 8, 8), generator=stream, dtype=torch.uint8), torch.arange(n) % 3)


def _task(made: Any, room: float = float("inf"), **options: Any) -> Task:
    """Complete a task whose data are made by a function, or are there."""
    returned.append(made)
    usual = {"data": "tests.small:data", "net": f"{HERE}:Linear", "engine": "loop", "schedule": "fixed"}
    return completed(Task(**{**usual, "batch_size": 10, "epochs": 2, **options}), anew=True, room=room)


def _run(task: Task, splits: Splits, cells: Any = CELLS, at: Any = None) -> list[str]:
    return run(task, NAME, cells, at, data=splits)


def test_data_that_do_not_fit_are_streamed_and_give_the_same_bits_as_in_memory() -> None:
    sets = [_numbers(44), _numbers(30).columns]
    for room, streams in ((44 * 24, False), (44 * 24 - 1, True)):
        task = _task(sets, room, loss="mse")
        both = [isinstance(one, StreamedSplit) for one in (loaded(task).train, loaded(task).validation)]
        assert [task.stream, *both] == [streams, streams, False]
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (_numbers, {"loss": "mse", "measure": f"{HERE}:share"}),
        (_bytes, {"standardize": True, "augment": "crop-flip", "accumulate": 2}),
    ]
    for make, options in kinds:
        sets = [make(n) for n in (44, 300, 20)]
        held, streamed = _task(sets, **options), _task(sets, **options, stream=True)
        assert streamed == held, make
        assert streamed.data_set.digest == held.data_set.digest, make  # the same study
        found = loaded(streamed)
        assert isinstance(found.train, StreamedSplit), make
        assert _run(streamed, found) == _run(held, loaded(_task(sets, **options))), make


def test_a_lane_with_random_transforms_equals_a_lone_run_that_seeds_alike() -> None:
    noisy, plain = _classes(F64, change=_noise), _classes(F64)
    task = _task([noisy, plain], stream=True)
    trials = pack(NAME, task, seed=3, data=loaded(task).to(CPU, F64)).run()
    for cell, trial in zip(CELLS, trials, strict=True):
        module = small.begun(task)
        optimizer = torch.optim.AdamW(module.parameters(), lr=cell.lr, weight_decay=cell.weight_decay)
        order = generator(3, "data order")
        for epoch in (1, 2):
            for batch in torch.randperm(44, generator=order)[:40].split(10):  # type: ignore[no-untyped-call]
                items = []
                for k in batch.tolist():
                    with seeded(0):  # which restores the generators
                        seed = int(np.random.SeedSequence((3, epoch, k)).generate_state(1)[0])
                        for generators in (torch.manual_seed, np.random.seed, random.seed):
                            generators(seed)
                        items.append(noisy[k])
                x, y = map(torch.stack, zip(*items, strict=True))
                optimizer.zero_grad()
                cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        expected = cross_entropy(module(plain.columns[0]), plain.columns[1]).item()
        assert abs(trial.metrics["val_loss"] - expected) < 1e-10


def test_streamed_lanes_do_not_depend_on_interruptions_packs_or_processes(tmp_path: Path) -> None:
    task = _task(lambda: [_classes(change=_noise), _classes()], stream=True)
    splits = loaded(task)
    whole = _run(task, splits)
    for stop in (1, 3, 6):
        at = begun(task, NAME, CELLS, place(tmp_path / str(stop)), stop, splits)
        assert _run(task, splits, at=at) == whole, stop
    assert [_run(task, splits, [cell])[0] for cell in CELLS] == whole
    save_splits(splits, tmp_path / "splits")
    assert _run(task, reopened(task.data, load_splits(tmp_path / "splits"), 3)) == whole  # another process
    returned.append([Items(*(column.flip(0) for column in _classes().columns)), _classes()])
    with pytest.raises(DataError, match=r"train is different in another process; make the order of its"):
        reopened(task.data, load_splits(tmp_path / "splits"), 3)


class Long(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return itertools.repeat((torch.ones(100), 0))

    def __len__(self) -> int:
        return 300


def test_what_cannot_be_streamed_or_read_is_refused_in_one_line() -> None:
    plain, columns, few = _classes(), _classes().columns, {"room": 44 * 28 + 10**5}
    loader = DataLoader(TensorDataset(*columns), 4, collate_fn=partial(default_collate))
    stream, absent = np.random.default_rng(0), Mock(side_effect=OSError("no such image"))
    own = Items(*columns, change=lambda x, y: (x + stream.random(), y))
    unfit = "stream=True is for data sets with __getitem__ and __len__"
    random_each_time = "different every time, also under the same seed; draw"
    for made, options, complaint in (
        ([columns, columns], {"stream": True}, unfit),
        ([loader, loader], {"stream": True}, unfit),
        ([own, plain], {"stream": True}, random_each_time),
        ([plain, iter(Long())], few, "validation does not fit: 246 items are more than 0.0"),
        ([plain, Long()], few, "validation does not fit: 300 items are more than"),
    ):
        assert_raises(complaint, _task, made, error=DataError, **options)
    assert_raises("stream=True is for data sets of your own", Task, stream=True)
    for change, complaint in (
        (absent, "item .* of train cannot be read: OSError: no such image"),
        (lambda x, y: (x[:4], y), r"item .* of train has shape \(4,\), item 0 has \(5,\)"),
        (lambda x, y: (x, y + 9), r"of train has the label \d+, and had one below 3 when it was read"),
    ):
        items = Items(*columns)  # which change after they were surveyed
        task = _task([items, plain], stream=True)
        splits, items.change = loaded(task), change
        assert_raises(complaint, _run, task, splits, error=DataError)


LARGE = """
import resource, sys, torch
from torch.utils.data import Dataset, IterableDataset
from lrwd_sweep.data.user_splits import read

class Large(Dataset):
    def __len__(self): return 2500
    def __getitem__(self, k): return torch.full((50_000,), float(k)), k % 2

class Iterated(IterableDataset):
    def __iter__(self): return (Large()[k] for k in range(2500))

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
small = torch.ones(4, 50_000), torch.arange(4) % 2
read([small, small]); before = peak()
read([eval(sys.argv[1])(), small], stream=len(sys.argv) > 2)
print((peak() - before) / (2500 * 50_000 * 4 / 1024))
"""


@pytest.mark.slow
def test_data_of_500_mb_are_read_within_1_5_times_their_memory() -> None:
    for arguments, most in ((["Large"], 1.5), (["Iterated"], 1.5), (["Large", "stream"], 0.6)):
        command = [sys.executable, "-c", LARGE, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert float(done.stdout) < most, (arguments, done.stdout)
