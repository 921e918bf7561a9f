"""Training one pack: the lanes of one seed, stacked into one program."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.decay import Family, Optimizer
from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.lattice import Cell
from lrwd_sweep.nets import NATIVE, MlpLanes
from lrwd_sweep.optim import Adam, Sgd, StepFamily, Update
from lrwd_sweep.spec import Training
from lrwd_sweep.trial import Status, Trial

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
        x, lanes = splits.train.x, len(cells)
        self.training, self.cells, self.seed, self.splits = training, list(cells), seed, splits
        net = NATIVE[training.net]
        self.arena = Arena.stack(
            net.init(generator(seed, "parameters")), lanes, device=x.device, dtype=x.dtype
        )
        self.lanes = MlpLanes(net, self.arena.named, self.arena.named_grad, training.batch_size)
        self.update = Update(
            _family(optimizer, training, self.arena.theta),
            optimizer.rule,
            alpha=torch.tensor([[cell.lr] for cell in cells], device=x.device, dtype=x.dtype),
            lam=torch.tensor([[cell.weight_decay] for cell in cells], device=x.device, dtype=x.dtype),
        )
        self.died_at = torch.full((lanes,), -1, device=x.device)  # batch of divergence; −1 while alive
        self.any_died = False
        self.curves: dict[str, list[list[float]]] = {}  # name → epoch → lane

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
            on_epoch(epoch, metrics)
        return self._trials()

    def _epoch(
        self, epoch: int, order: torch.Generator, should_stop: Callable[[], bool]
    ) -> dict[str, list[float]]:
        train, steps = self.splits.train, self.training.steps_per_epoch
        shuffled = torch.randperm(len(train), generator=order).to(train.x.device)
        batches = torch.split(shuffled, self.training.batch_size)
        total = torch.zeros_like(self.update.alpha[:, 0])
        for k, batch in enumerate(batches[:steps]):
            if should_stop():
                raise Stopped
            total += self.step(train.x[batch], train.y[batch], (epoch - 1) * steps + k)
        loss, error = self.evaluate(self.splits.validation)
        return {
            "train_loss": (total / steps).tolist(),
            "val_loss": loss.tolist(),
            "val_error": error.tolist(),
        }

    @torch.inference_mode()
    def step(self, x: Tensor, y: Tensor, t: int) -> Tensor:  # (L,)
        """One update on the batch x (B, features), y (B,) at t = 0, 1, …; every lane's loss before it."""
        losses = self.lanes.gradient(x, y)
        self._freeze_diverged(losses, t)
        eta = self.training.schedule.eta(t, self.training.steps)
        self.update.apply(self.arena.theta, self.arena.grad, eta, t + 1)
        return losses

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
    def evaluate(self, split: Split) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and misclassified share of every lane, each (L,), with running statistics."""
        loss = torch.zeros_like(self.update.alpha[:, 0])
        wrong = torch.zeros_like(loss)
        network = self.lanes.folded()
        for x, y in zip(*(torch.split(part, EVAL_BATCH) for part in (split.x, split.y)), strict=True):
            logits = network.predict(x)
            loss += _cross_entropy(logits, y).sum(dim=1)
            chosen = logits.gather(1, y.expand(len(self.cells), 1, -1)).squeeze(1)
            wrong += (chosen < logits.amax(dim=1)).sum(dim=1)
        wrong = torch.where(loss.isnan(), loss, wrong)  # NaN logits are not right either
        return loss / len(split), wrong / len(split)

    def _trials(self) -> list[Trial]:
        test_loss, test_error = (values.tolist() for values in self.evaluate(self.splits.test))
        died_at = self.died_at.tolist()
        trials = []
        for lane, cell in enumerate(self.cells):
            curves = {name: tuple(e[lane] for e in epochs) for name, epochs in self.curves.items()}
            metrics = {name: curve[-1] for name, curve in curves.items()}
            metrics |= {"test_loss": test_loss[lane], "test_error": test_error[lane]}
            finite = all(abs(value) < float("inf") for value in metrics.values())
            if died_at[lane] < 0 and finite:
                trials.append(Trial(cell, self.seed, Status.COMPLETE, metrics, curves))
            else:
                where = (
                    f"step {died_at[lane]} of {self.training.steps}"
                    if died_at[lane] >= 0
                    else "the last step"
                )
                detail = f"the loss was not finite at {where}"
                trials.append(Trial(cell, self.seed, Status.DIVERGED, {}, curves, detail))
        return trials


def generator(seed: int, purpose: str) -> torch.Generator:
    """A stream of its own for every seed and purpose, on the CPU: every device sees the same numbers."""
    return torch.Generator().manual_seed((seed << 8) + ("parameters", "data order").index(purpose))


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:  # (L, C, B), (B,) → (L, B)
    return functional.cross_entropy(logits, y.expand(logits.shape[0], -1), reduction="none")


def _family(optimizer: Optimizer, training: Training, theta: Tensor) -> StepFamily:
    if optimizer.family is Family.SGD:
        return Sgd(training.momentum, torch.zeros_like(theta))
    return Adam(
        training.beta1, training.beta2, training.eps, torch.zeros_like(theta), torch.zeros_like(theta)
    )
