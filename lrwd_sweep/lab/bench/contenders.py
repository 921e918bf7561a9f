"""Alternatives to the engine: each is given a task and yields a function that trains lanes in its way.

All share the lanes, the first weights, the batches and what is evaluated.
"""

import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from functools import cache, partial
from itertools import groupby
from multiprocessing import get_context
from operator import itemgetter
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.functional import cross_entropy

from lrwd_sweep.data import Split, Splits, load
from lrwd_sweep.engine.device import cores
from lrwd_sweep.engine.lane_state import generator
from lrwd_sweep.errors import HostError
from lrwd_sweep.nets import network
from lrwd_sweep.nets.mlp import Mlp, MlpModule
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import computing
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.spec.catalog import BFLOAT16
from lrwd_sweep.spec.task import Task

EVAL_BATCH = 1024  # all of the digits' validation split at once; the engine has its own
MOST_STACKED = {"cpu": 64, "cuda": 1024}  # networks in one stack
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # of torch.optim.AdamW

Lane = tuple[Cell, int]  # a cell and a seed
Curves = dict[Lane, list[float]]  # the validation loss after every epoch, and the test loss at the end
Train = Callable[[Task, Sequence[Lane]], Curves]
Work = Callable[[], object]
Step = Callable[[Tensor, Tensor], None]  # batch (B, *shape), (B,)
Stack = dict[str, Tensor]  # name → (L, *shape)
T = TypeVar("T")


def pick_lanes(lattice: Lattice, count: int) -> list[Lane]:
    """Take `count` lanes: the lattice for seed 0, 1, …, then cells spread evenly over it."""
    cells = list(lattice.cells())
    lanes = [(cell, seed) for seed in range(count // len(cells)) for cell in cells]
    rest = count - len(lanes)
    return lanes + [(cells[k * len(cells) // rest], count // len(cells)) for k in range(rest)]


def module(task: Task) -> nn.Module:
    """Build the task's network in torch.nn."""
    net = network(task)
    assert isinstance(net, ModuleNetwork | Mlp)
    return MlpModule(net) if isinstance(net, Mlp) else net.make()


@cache
def initial(task: Task, seed: int) -> tuple[Tensor, ...]:
    """Draw the first values of the parameters of `module`, in their order."""
    return tuple(value.float() for value in network(task).init(generator(seed, "parameters")).values())


def data(task: Task, device: torch.device) -> Splits:
    """Load all of the data into the device's memory."""
    return load(task.data, task.data_set, standardize=task.standardize).to(device, torch.float32)


def fit(step: Step, evaluate: Callable[[Split], T], task: Task, splits: Splits, seed: int) -> list[T]:
    """Train in the seed's order; evaluate validation after every epoch, and the test split at the end."""
    train, order, curve = splits.train, generator(seed, "data order"), []
    for _ in range(task.epochs):
        shuffled = torch.randperm(len(train), generator=order).to(train.device)
        for index in shuffled.split(task.batch_size)[: task.steps_per_epoch]:  # type: ignore[no-untyped-call]
            step(*train.batch(index))
        curve.append(evaluate(splits.validation))
    return [*curve, evaluate(splits.test)]


def computed(task: Task, device: torch.device, *, stacked: bool = False) -> AbstractContextManager[None]:
    """Compute a network's products in the task's precision within this context."""
    rounded = task.precision == BFLOAT16
    return computing(torch.bfloat16, device, stacked=stacked) if rounded else nullcontext()


def recorded(work: Work, device: torch.device) -> Work:
    """Return `work` as a CUDA graph, after a few runs of it; on a CPU, `work` itself."""
    if device.type == "cpu":
        return work
    here, beside = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        for _ in range(3):
            work()
    here.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


@contextmanager
def plain(task: Task, device: torch.device) -> Iterator[Train]:
    """Train lane after lane, each in a new network, with torch.optim.AdamW as it comes."""
    splits = data(task, device)
    yield lambda asked, lanes: {lane: _train_lane(asked, splits, lane) for lane in lanes}


@contextmanager
def compiled(task: Task, device: torch.device) -> Iterator[Train]:
    """Train lane after lane in one network, compiled once, with AdamW(fused=True)."""
    if device.type == "cpu" and not shutil.which(compiler := os.environ.get("CXX", "g++")):
        raise HostError(f"no C++ compiler ({compiler}); install one, or set CXX")
    net = module(task).to(device)
    train = _in_one_network(net, partial(_steps, net, fused=True), data(task, device))
    net.compile()
    yield train


@contextmanager
def graphs(task: Task, device: torch.device) -> Iterator[Train]:
    """Train lane after lane in one network, its step recorded once as a CUDA graph, with fused AdamW."""
    splits, net = data(task, device), module(task).to(device)
    fresh = deepcopy(net)  # recording takes steps
    steps = _recorded_steps(net, task, splits.train)
    net.load_state_dict(fresh.state_dict())
    yield _in_one_network(net, steps, splits)


@contextmanager
def processes(task: Task, device: torch.device) -> Iterator[Train]:
    """Train as plain, in a process of one thread per core."""
    with ProcessPoolExecutor(cores(), get_context("spawn"), _start_worker, (task, device)) as pool:
        yield lambda asked, lanes: dict(zip(lanes, pool.map(partial(_work, asked), lanes), strict=True))


@contextmanager
def vmap(task: Task, device: torch.device) -> Iterator[Train]:
    """Train stacks of a seed's networks with torch.func, and AdamW written for stacks."""
    splits, net = data(task, device), module(task).to(device)
    most = MOST_STACKED[device.type]

    def train(asked: Task, lanes: Sequence[Lane]) -> Curves:
        curves = Curves()
        for seed, lanes_of_seed in groupby(lanes, itemgetter(1)):
            cells = [cell for cell, _ in lanes_of_seed]
            for some in (cells[k : k + most] for k in range(0, len(cells), most)):
                rows = fit(*_stack(net, asked, splits, some, seed), asked, splits, seed)
                of_cells = zip(some, zip(*rows, strict=True), strict=True)
                curves |= {(cell, seed): list(curve) for cell, curve in of_cells}
        return curves

    yield train


BASELINES = {each.__name__: each for each in (plain, compiled, graphs, processes, vmap)}


def _train_lane(task: Task, splits: Splits, lane: Lane) -> list[float]:
    net = module(task).to(splits.train.device)
    return _in_one_network(net, partial(_steps, net), splits)(task, [lane])[lane]


_splits_of_worker: list[Splits] = []


def _start_worker(task: Task, device: torch.device) -> None:
    torch.set_num_threads(1)
    _splits_of_worker.append(data(task, device))


def _work(task: Task, lane: Lane) -> list[float]:
    return _train_lane(task, _splits_of_worker[0], lane)


def _in_one_network(net: nn.Module, steps: Callable[[Task, Cell], Step], splits: Splits) -> Train:
    """Return a function that trains lane after lane in `net`, so that it is compiled or recorded once."""
    fresh = {name: value.clone() for name, value in net.named_buffers()}

    def train(task: Task, lanes: Sequence[Lane]) -> Curves:
        curves = Curves()
        for cell, seed in lanes:
            start = zip(net.named_parameters(), initial(task, seed), strict=True)
            net.load_state_dict(fresh | {name: value for (name, _), value in start}, strict=False)
            curves[cell, seed] = fit(steps(task, cell), partial(_evaluate, net, task), task, splits, seed)
        return curves

    return train


def _steps(net: nn.Module, task: Task, cell: Cell, *, fused: bool = False) -> Step:
    """Return a function that takes one step after another, with the schedule."""
    adamw = torch.optim.AdamW(net.parameters(), lr=cell.lr, weight_decay=cell.weight_decay, fused=fused)
    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, task.timetable.eta)

    def step(x: Tensor, y: Tensor) -> None:
        adamw.zero_grad()
        _loss(net, task, x, y).backward()  # type: ignore[no-untyped-call]
        adamw.step()
        schedule.step()

    return step


def _recorded_steps(net: nn.Module, task: Task, split: Split) -> Callable[[Task, Cell], Step]:
    """Record a step, with batch, learning rate and decay on the device; return `_steps` that replay it."""
    x, y = split.batch(torch.arange(task.batch_size, device=split.device))
    alpha, kept = (torch.zeros((), device=split.device) for _ in range(2))
    parameters: list[Tensor] = list(net.parameters())
    adamw = torch.optim.AdamW(  # a decay would be recorded as a number; `kept` takes its place
        parameters, lr=alpha, weight_decay=0.0, fused=True, capturable=split.device.type == "cuda"
    )

    def recorded_step() -> None:
        adamw.zero_grad()
        _loss(net, task, x, y).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            torch._foreach_mul_(parameters, kept)
        adamw.step()

    replay = recorded(recorded_step, split.device)

    def steps(asked: Task, cell: Cell) -> Step:
        for value in (value for state in adamw.state.values() for value in state.values()):
            value.zero_()
        etas = map(asked.timetable.eta, range(asked.steps))

        def step(batch: Tensor, classes: Tensor) -> None:
            eta = next(etas)
            x.copy_(batch)
            y.copy_(classes)
            alpha.fill_(eta * cell.lr)
            kept.fill_(1 - eta * cell.lr * cell.weight_decay)
            replay()

        return step

    return steps


def _loss(net: nn.Module, task: Task, x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    with computed(task, x.device):
        logits = net(x)
    return cross_entropy(logits.float()[:, : task.data_set.classes], y, reduction=reduction)


@torch.no_grad()
def _evaluate(net: nn.Module, task: Task, split: Split) -> float:
    """Return the mean loss on a split, by running statistics; NaN if the split is empty."""
    net.eval()
    losses = [_loss(net, task, x, y, "sum") for x, y in split.batches(EVAL_BATCH)] if len(split) else []
    net.train()
    return torch.stack(losses).sum().item() / len(split) if losses else math.nan


def _stack(
    net: nn.Module, task: Task, splits: Splits, cells: Sequence[Cell], seed: int
) -> tuple[Step, Callable[[Split], list[float]]]:
    """Stack a network for every cell; return the function that takes a step, and that evaluates."""
    device, lanes, t = splits.train.device, len(cells), 0
    begun = zip(net.named_parameters(), initial(task, seed), strict=True)
    theta = {name: value.to(device).expand(lanes, *value.shape).clone() for (name, _), value in begun}
    buffers = {name: value.expand(lanes, *value.shape).clone() for name, value in net.named_buffers()}
    update, bare = _stacked_adamw(theta, cells), deepcopy(net).to("meta")

    def loss(theta: Stack, buffers: Stack, x: Tensor, y: Tensor) -> Tensor:
        with computed(task, device, stacked=True):
            logits = functional_call(bare, (theta, buffers), (x,))
        return cross_entropy(logits.float()[:, : task.data_set.classes], y)  # without an embedding

    gradient = torch.vmap(grad(loss), in_dims=(0, 0, None, None), randomness="different")
    evaluated = torch.vmap(loss, in_dims=(0, 0, None, None))

    def step(x: Tensor, y: Tensor) -> None:
        nonlocal t
        t += 1
        update(gradient(theta, buffers, x, y), task.timetable.eta(t - 1), t)

    @torch.no_grad()
    def evaluate(split: Split) -> list[float]:
        bare.eval()
        sums = [evaluated(theta, buffers, x, y) * len(y) for x, y in split.batches(EVAL_BATCH)]
        bare.train()
        found: list[float] = (torch.stack(sums).sum(dim=0) / len(split)).tolist()
        return found

    return step, evaluate


def _stacked_adamw(theta: Stack, cells: Sequence[Cell]) -> Callable[[Stack, float, int], None]:
    """Return torch.optim.AdamW's step t = 1, 2, … for stacks, given gradients, the schedule's η and t."""
    device = next(iter(theta.values())).device
    axes = [cell.lr for cell in cells], [cell.weight_decay for cell in cells]
    lr, weight_decay = (torch.tensor(axis, device=device) for axis in axes)
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in theta.items()}

    @torch.no_grad()
    def step(gradients: Stack, eta: float, t: int) -> None:
        alpha = eta * lr
        decay, size = 1 - alpha * weight_decay, -alpha / (1 - BETA1**t)
        for name, value in theta.items():
            g, (m, v) = gradients[name], moments[name]
            shape = (-1, *[1] * (value.dim() - 1))
            m.lerp_(g, 1 - BETA1)
            v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            denominator = v.sqrt().div_((1 - BETA2**t) ** 0.5).add_(EPS)
            value.mul_(decay.view(shape)).addcmul_(m / denominator, size.view(shape))

    return step
