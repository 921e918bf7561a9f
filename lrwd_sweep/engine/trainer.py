"""Training one pack: the lanes of one seed, stacked into one program."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.data import Split, Splits, augmentation
from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.engine.diagnostics import Diagnostics
from lrwd_sweep.lattice import Cell
from lrwd_sweep.nets import Loss, loss_of, network, of_seed
from lrwd_sweep.optim import make_update
from lrwd_sweep.optimizer import Optimizer
from lrwd_sweep.spec import Training
from lrwd_sweep.trial import Status, Trial

MEASURES = ("loss", "error", "top5_error")  # of every split: cross-entropy, and the two errors
EVAL_BATCH = 256  # the same for every pack, so that no lane's rounding depends on its pack


class Stopped(Exception):
    """The caller asked to stop between two steps; this pack is lost, finished ones are not."""


OnEpoch = Callable[[int, dict[str, list[float]]], None]  # epoch from 1; metric → value by lane


class PackTrainer:
    """L lanes of one seed under one optimizer: same initialisation, same batches, their own α and λ.

    `splits` decides device and compute type; both parameters and moments live in them.
    """

    def __init__(
        self, optimizer: Optimizer, training: Training, cells: Sequence[Cell], seed: int, splits: Splits
    ) -> None:
        train, lanes = splits.train, len(cells)
        self.training, self.cells, self.seed, self.splits = training, list(cells), seed, splits
        self.timetable = training.timetable
        net = of_seed(network(training), generator(seed, "parameters"))
        self.arena = Arena.stack(
            net.init(generator(seed, "parameters")), lanes, device=train.device, dtype=train.dtype
        )
        self.lanes = net.lanes(self.arena.named, self.arena.named_grad, training.batch_size)
        self.update = make_update(
            optimizer,
            training,
            self.arena.theta,
            self.arena.layout,
            alpha=torch.tensor([[cell.lr] for cell in cells], device=train.device, dtype=train.dtype),
            lam=torch.tensor([[cell.weight_decay] for cell in cells], device=train.device, dtype=train.dtype),
        )
        self.loss = loss_of(net)
        self.diagnostics = Diagnostics(self.arena, net.scale_invariant, self.update, optimizer.family)
        self.noise = generator(seed, "noise", train.device)
        self.augment = augmentation(training.augment, generator(seed, "augmentation", train.device))
        self.died_at = torch.full((lanes,), -1, device=train.device)  # batch of divergence; −1 while alive
        self.any_died = False
        self.curves: dict[str, list[list[float]]] = {}  # name → epoch → lane
        self.snapshots: dict[int, dict[str, list[float]]] = {}  # epoch → name → lane

    def run(
        self,
        on_epoch: OnEpoch = lambda epoch, metrics: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Trial]:
        """Train to the end; one trial per cell, in order. Raises Stopped at a step boundary when asked to."""
        order = generator(self.seed, "data order")
        for epoch in range(1, self.training.epochs + 1):
            metrics = self._epoch(epoch, order, should_stop)
            for name, values in metrics.items():
                self.curves.setdefault(name, []).append(values)
            if epoch in self.timetable.snapshots:
                self.snapshots[epoch] = metrics | self._tested()
            on_epoch(epoch, metrics)
        return self._trials()

    def _epoch(
        self, epoch: int, order: torch.Generator, should_stop: Callable[[], bool]
    ) -> dict[str, list[float]]:
        train, steps = self.splits.train, self.training.steps_per_epoch
        shuffled = torch.randperm(len(train), generator=order).to(train.device)
        batches = torch.split(shuffled, self.training.batch_size)
        total = torch.zeros(len(MEASURES), len(self.cells), device=train.device, dtype=train.dtype)
        for k, batch in enumerate(batches[:steps]):
            if should_stop():
                raise Stopped
            x, y = train.batch(batch)
            total += self.step(self.augment(x), y, (epoch - 1) * steps + k)
        size = steps * self.training.batch_size
        return _named("train", _means(total, size)) | _named("val", self.evaluate(self.splits.validation))

    @torch.inference_mode()
    def step(self, x: Tensor, y: Tensor, t: int) -> Tensor:  # (MEASURES, L)
        """One update on the batch x (B, *shape), y (B,) at t = 0, 1, …; sums of what every lane had."""
        losses, logits = self.lanes.gradient(x, y, self.noise)
        self._freeze_diverged(losses, t)
        eta, n = self.timetable.eta(t), self.timetable.steps_of_cycle(t)
        measured = (t + 1) % self.training.steps_per_epoch == 0
        theta = self.diagnostics.before() if measured else None
        self.update.apply(self.arena.theta, self.arena.grad, eta, t + 1, n)
        if measured:
            self.diagnostics.after(theta, eta, self.died_at < 0)
        return torch.cat([(losses * len(y)).unsqueeze(0), _errors(logits, y)])

    def _freeze_diverged(self, losses: Tensor, t: int) -> None:
        """Stop lanes at their first loss that is not finite: select, never multiply (0·NaN is NaN)."""
        finite = torch.isfinite(losses)
        if finite.is_cpu and not self.any_died and bool(finite.all()):
            return  # on other devices the question would cost more than the work below
        self.any_died = True
        self.died_at = torch.where(finite | (self.died_at >= 0), self.died_at, t)
        row = (self.died_at < 0).unsqueeze(1)
        for state in (self.arena.grad, self.update.alpha, self.update.lam, *self.update.family.moments()):
            torch.where(row, state, torch.zeros_like(row, dtype=state.dtype), out=state)

    @torch.inference_mode()
    def evaluate(self, split: Split) -> Tensor:  # (MEASURES, L)
        """The measures of every lane on a split, with running statistics."""
        total = torch.zeros(len(MEASURES), len(self.cells), device=split.device, dtype=split.dtype)
        network = self.lanes.predictor()
        for x, y in split.batches(EVAL_BATCH):
            logits = network.predict(x)
            total += torch.cat([_losses(self.loss, logits, y).unsqueeze(0), _errors(logits, y)])
        return _means(total, len(split))

    def _tested(self) -> dict[str, list[float]]:
        """The measures on the test split, if there is one."""
        return _named("test", self.evaluate(self.splits.test)) if len(self.splits.test) else {}

    def _trials(self) -> list[Trial]:
        newest = max(self.snapshots, default=None)
        if newest is None:
            last = {name: values[-1] for name, values in self.curves.items()}
            last |= self._tested()
        else:
            last = self.snapshots[newest]  # what the run hands over
        died_at = self.died_at.tolist()
        trials = []
        every = self.curves | self.diagnostics.curves
        for lane, cell in enumerate(self.cells):
            curves = {name: tuple(e[lane] for e in epochs) for name, epochs in every.items()}
            metrics = {name: values[lane] for name, values in last.items()}
            snapshots = {
                epoch: {name: values[lane] for name, values in found.items()}
                for epoch, found in self.snapshots.items()
            }
            ends = [*metrics.values(), *(curves[name][-1] for name in self.curves)]
            finite = all(math.isfinite(value) for value in ends)
            if died_at[lane] < 0 and finite:
                trials.append(Trial(cell, self.seed, Status.COMPLETE, metrics, curves, snapshots=snapshots))
            else:
                where = (
                    f"step {died_at[lane]} of {self.training.steps}"
                    if died_at[lane] >= 0
                    else "the last step"
                )
                detail = f"the loss was not finite at {where}"
                before = {epoch: m for epoch, m in snapshots.items() if all(map(math.isfinite, m.values()))}
                trials.append(Trial(cell, self.seed, Status.DIVERGED, {}, curves, detail, before))
        return trials


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A stream of its own for every seed and purpose; those on the CPU are the same for every device."""
    purposes = ("parameters", "data order", "noise", "augmentation")
    return torch.Generator(device).manual_seed((seed << 8) + purposes.index(purpose))


def _named(split: str, values: Tensor) -> dict[str, list[float]]:  # (MEASURES, L)
    """By metric name, every lane's value."""
    return {f"{split}_{name}": row for name, row in zip(MEASURES, values.tolist(), strict=True)}


def _errors(logits: Tensor, y: Tensor) -> Tensor:  # (L, C, B), (B,) → (2, L)
    """How many have a class that is not the likeliest, and not among the five likeliest."""
    chosen = logits.gather(1, y.expand(logits.shape[0], 1, -1))
    rank = (logits > chosen).sum(dim=1, dtype=torch.int32)
    return torch.stack([rank >= 1, rank >= 5]).sum(dim=2, dtype=logits.dtype)


def _means(total: Tensor, size: int) -> Tensor:  # (MEASURES, L)
    """Sums as means; where the loss is NaN no prediction is right either."""
    means = total / size
    return torch.where(means[0].isnan(), means[0], means)


def _losses(loss: Loss, logits: Tensor, y: Tensor) -> Tensor:  # (L, C, B), (B,) → (L,)
    """Every lane's loss, summed over the batch."""
    if loss is functional.cross_entropy:
        return functional.cross_entropy(logits, y.expand(len(logits), -1), reduction="none").sum(dim=1)
    return torch.stack([loss(lane.t(), y) for lane in logits]) * len(y)
