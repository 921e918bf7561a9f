"""Lone runs in plain torch with SAM, averages, snapshot ensembles and penalised logits, compared with lanes.

The optimizers are torch.optim's, the averages those of torch.optim.swa_utils; the rest is written out. In
float64, on made-up data.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.engine.lane_state import generator
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.lab.bench.contenders import module
from lrwd_sweep.lab.references import LoneKfac
from lrwd_sweep.lab.verify import Check, Section
from lrwd_sweep.nets import network
from lrwd_sweep.nets.randomness import Noisy
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import MomentumForm, Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.catalog import EMA, EMBEDDINGS, ENSEMBLE, ETA, RECALL, SWA, DataSet
from lrwd_sweep.spec.task import Task

SAME = 1e-10  # relative
SIZES = DataSet(train=80, validation=40, test=0, classes=4, shape=(12,))
CELLS = (Cell(0.03, 0.01), Cell(0.003, 0.1))
SEED = 5


@dataclass
class LoneRun:
    """One lane by torch.optim, with what it averages on its way."""

    optimizer: str  # adamw:lr-scaled, sgd in torch's form of momentum, or K-FAC with a rule
    task: Task
    cell: Cell
    splits: Splits
    seed: int = SEED
    snapshots: list[nn.Module] = field(default_factory=list)

    def __post_init__(self) -> None:
        train, task = self.splits.train, self.task
        self.net = module(task).to(train.device, train.dtype)
        first = network(task).init(generator(self.seed, "parameters"))
        with torch.no_grad():
            for name, value in self.net.named_parameters():
                value.copy_(first[name])
        kinds: dict[str, Any] = {"adamw:lr-scaled": torch.optim.AdamW, "sgd": torch.optim.SGD}
        kind = kinds.get(self.optimizer, torch.optim.SGD)
        momentum = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        self.steps = kind(
            self.net.parameters(), lr=self.cell.lr, weight_decay=self.cell.weight_decay, **momentum
        )
        self.swa = AveragedModel(self.net)
        beta = 0.5 ** (1 / ((task.ema or 1) * task.steps_per_epoch))
        self.ema = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(beta))  # type: ignore[no-untyped-call]
        self.noise = generator(self.seed, "noise")
        for part in self.net.modules():
            if isinstance(part, Noisy):
                part.noise = self.noise
        self.kfac: LoneKfac | None = None
        if self.optimizer not in kinds:
            optimizer = Optimizer.parse(self.optimizer)
            self.kfac = LoneKfac(self.net, optimizer, task, self.cell.lr, self.cell.weight_decay, self.noise)

    def train(self) -> None:
        """Take all steps."""
        task, order, t = self.task, generator(self.seed, "data order"), 0
        for epoch in range(1, task.epochs + 1):
            for x, y in self._batches(order, task.items_per_step):
                for group in self.steps.param_groups:
                    group["lr"] = self.cell.lr * task.timetable.eta(t)
                if self.kfac is None:
                    self._step(x, y)
                else:
                    size = task.batch_size
                    self.kfac.step(list(zip(x.split(size), y.split(size), strict=True)), t)  # type: ignore[no-untyped-call]
                self.ema.update_parameters(self.net)
                t += 1
            if epoch in task.swa_epochs:
                self.swa.update_parameters(self.net)
            if epoch in task.timetable.snapshots:
                self.snapshots.append(deepcopy(self.net))

    def _batches(self, order: torch.Generator, size: int) -> list[tuple[Tensor, Tensor]]:
        train = self.splits.train
        shuffled = torch.randperm(len(train), generator=order).to(train.device)
        return [train.batch(index) for index in shuffled.split(size) if len(index) == size]  # type: ignore[no-untyped-call]

    def _gradient(self, x: Tensor, y: Tensor) -> None:
        self.steps.zero_grad()
        size = self.task.batch_size
        for part, targets in zip(x.split(size), y.split(size), strict=True):  # type: ignore[no-untyped-call]
            z = self.net(part)
            loss = cross_entropy(z, targets) + self.task.logit_decay / 2 * z.square().sum(1).mean()
            (loss / self.task.accumulate).backward()

    def _step(self, x: Tensor, y: Tensor) -> None:
        """Take a step; with SAM as in its Algorithm 1, or as ASAM's equation has it."""
        drawn = self.noise.get_state()
        self._gradient(x, y)
        if self.task.sam:
            self._ascend_and(lambda: self._gradient(x, y), drawn)
        if self.task.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.task.clip_norm)
        self.steps.step()

    def _ascend_and(self, compute: Callable[[], None], drawn: Tensor) -> None:
        parameters = list(self.net.parameters())
        before = [value.detach().clone() for value in parameters]
        grads = [value.grad for value in parameters if value.grad is not None]
        with torch.no_grad():
            t_w = [w.abs() + ETA if self.task.sam_adaptive else torch.ones_like(w) for w in before]
            size = math.sqrt(sum(float((t * g).square().sum()) for t, g in zip(t_w, grads, strict=True)))
            for value, t, g in zip(parameters, t_w, grads, strict=True):
                value.add_(self.task.sam * t**2 * g / size)
        statistics = [buffer.clone() for buffer in self.net.buffers()]
        self.noise.set_state(drawn)
        compute()
        with torch.no_grad():
            for value, old in zip(parameters, before, strict=True):
                value.copy_(old)
            for buffer, kept in zip(self.net.buffers(), statistics, strict=True):
                buffer.copy_(kept)

    @torch.no_grad()
    def measured(self, kind: str) -> dict[str, float]:
        """Return loss, error and recall on the validation split: of the last weights, if no kind is named."""
        x, y = self.splits.validation.x, self.splits.validation.y
        classes = self.task.data_set.classes
        if kind == ENSEMBLE:
            members = [one.eval()(x) for one in self.snapshots[-(self.task.ensemble or 0) :]]
            mean = torch.stack([one[:, :classes].softmax(1) for one in members]).mean(0)
            loss, found = nll_loss(mean.log(), y), mean
            embedding = torch.cat([one[:, classes:] for one in members], 1)
        else:
            net: nn.Module = {SWA: self.swa, EMA: self.ema}.get(kind, self.net)
            if kind:
                update_bn(self._batches(generator(self.seed, "averages"), self.task.batch_size), net)
            found, embedding = net.eval()(x).tensor_split([classes], 1)
            loss = cross_entropy(found, y)
        start = f"{kind}_" if kind else ""
        wrong = (found.argmax(1) != y).double().mean()
        measured = {"val_loss": loss.item(), "val_error": wrong.item()}
        if self.task.net in EMBEDDINGS:
            measured[f"val_{RECALL}"] = _recall(embedding, y)
        return {f"{start}{name}": value for name, value in measured.items()}


def _recall(embedding: Tensor, y: Tensor) -> float:  # (n, D), (n,)
    """Return the share of items of the class of the one at the smallest angle."""
    hits = 0
    for k, e in enumerate(embedding):
        cosines = torch.nn.functional.cosine_similarity(embedding, e, dim=1)
        cosines[k] = -2
        hits += int(y[cosines.argmax()] == y[k])
    return hits / len(y)


def made_up_splits(sizes: DataSet, device: torch.device) -> Splits:
    """Make data in float64 whose classes overlap."""
    stream = torch.Generator().manual_seed(0)
    centres = torch.randn(sizes.classes, *sizes.shape, generator=stream, dtype=torch.float64)

    def split(count: int) -> Split:
        y = torch.arange(count) % sizes.classes
        noise = torch.randn(count, *sizes.shape, generator=stream, dtype=torch.float64)
        return Split(centres[y] + 2 * noise, y).to(device, torch.float64)

    return Splits(split(sizes.train), split(sizes.validation), split(sizes.test))


def apart(optimizer: str, task: Task, cells: Sequence[Cell], splits: Splits) -> float:
    """Compute the largest relative difference of lanes from lone runs, in weights and in every metric."""
    trainer = PackTrainer(Optimizer.parse(optimizer), task, cells, SEED, splits)
    trials, worst = trainer.run(), 0.0
    for lane, (cell, trial) in enumerate(zip(cells, trials, strict=True)):
        alone = LoneRun(optimizer, task, cell, splits)
        alone.train()
        for name, value in alone.net.named_parameters():
            off = (trainer.arena.named[name][lane] - value).abs().max() / value.abs().max().clamp_min(1e-3)
            worst = max(worst, off.item())
        expected = {} if task.timetable.snapshots else alone.measured("")
        for kind in task.kinds:
            expected |= alone.measured(kind)
        for name, number in expected.items():
            worst = max(worst, abs(trial.metrics.get(name, math.inf) - number) / max(number, 1e-3))
    return worst


CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (  # the method, by what torch has it, and our fields
    ("SAM", "two gradients by hand", {"sam": 0.05}),
    ("ASAM", "two gradients by hand", {"sam": 0.5, "sam_adaptive": True}),
    ("SWA", "AveragedModel, update_bn", {"swa": 3}),
    ("EMA", "AveragedModel, get_ema_multi_avg_fn", {"ema": 1.5}),
    ("regularised softmax", "penalty by hand", {"logit_decay": 0.1}),
    ("snapshot ensemble", "mean softmax by hand", {"ensemble": 2, "schedule": Schedule.RESTARTS}),
)


class WithBiases(nn.Module):
    """A convolution and two linear layers with biases, for images of 8×8."""

    def __init__(self) -> None:
        super().__init__()
        body = (nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 6), nn.Tanh())
        self.net = nn.Sequential(*body, nn.Linear(6, SIZES.classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 4) of x (B, 1, 8, 8)."""
        logits: Tensor = self.net(x)
        return logits


def parity_of_kfac(device: torch.device) -> Section:
    """Compare K-FAC with L2 and with decoupled decay with a lone run that solves with its factors."""
    sizes = replace(SIZES, shape=(1, 8, 8))
    splits, checks = made_up_splits(sizes, device), []
    for net, what in (("cnn", "cnn"), (f"{__name__}:WithBiases", "layers with biases")):
        for name in ("kfac", "kfacw", "kfacw:lr-scaled"):
            task = Task(
                net=net, data="digits", sizes=sizes, epochs=4, batch_size=16, damping=0.1, inverse_interval=3
            )
            cells = (what, name, Optimizer.parse(name).rule.update)
            checks.append(Check(cells, apart(name, task, CELLS, splits), SAME))
    return Section(
        "K-FAC: lanes equal lone runs with the factors of Martens & Grosse 2015",
        ("network", "ours", "decay"),
        tuple(checks),
    )


def parity_of_flat_minima(device: torch.device) -> Section:
    """Compare SAM, averages, ensembles and penalised logits with lone runs, under both optimizers."""
    splits, checks = made_up_splits(SIZES, device), []
    for method, theirs, fields in CASES:
        for optimizer in ("sgd", "adamw:lr-scaled"):
            task = Task(
                net="mlp",
                data="digits",
                sizes=SIZES,
                epochs=6,
                batch_size=16,
                momentum_form=MomentumForm.TORCH,
                **{"t_0": 2, "t_mult": 1} | fields,
            )
            cells = (method, theirs, optimizer)
            checks.append(Check(cells, apart(optimizer, task, CELLS, splits), SAME))
    return Section(
        "Flat minima and regularised softmax: lanes equal lone runs of torch.optim",
        ("method", "in torch", "optimizer"),
        tuple(checks),
    )
