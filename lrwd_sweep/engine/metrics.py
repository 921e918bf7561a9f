"""Metrics of a pack: loss and errors on every split, and diagnostics of the last update of every epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.engine.device import is_out_of_memory
from lrwd_sweep.errors import UsageError, arg, shown
from lrwd_sweep.nets.loss import DEFAULT_LOSS, NamedLoss
from lrwd_sweep.nets.network import Loss, by_class, counted
from lrwd_sweep.optim import Update
from lrwd_sweep.science.optimizer import Family
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import CLASS, FLOAT, IGNORED, MULTI_HOT, POSITION, RECALL, measures, metric_of
from lrwd_sweep.spec.user_code import UserCode

LARGEST_EXPONENT = 700  # of a perplexity in float64
RECALL_ROWS = 512  # of cosines at a time


@dataclass(frozen=True, slots=True)
class UserMetric:
    """A function of the user: outputs and targets of a whole split → one number."""

    name: str  # without the split
    code: UserCode

    @classmethod
    def find(cls, name: str) -> Self:
        """Import the function. Raises UsageError or UnknownName."""
        return cls(metric_of(name).removeprefix("val_"), user_code.find("metric", name))

    def values(
        self,
        outputs: Tensor,  # (L, C, n) or (L, n, …)
        y: Tensor,  # (n, …)
        alive: Tensor,  # (L,)
        target: str,
    ) -> Tensor:  # (L,) float64
        """Compute every lane's value on the CPU; NaN for a diverged lane. Raises UsageError."""
        lanes = outputs.transpose(1, 2) if target == CLASS else outputs
        return torch.tensor(
            [
                self._value(lane, y) if lives and bool(lane.isfinite().all()) else math.nan
                for lane, lives in zip(lanes, alive.tolist(), strict=True)
            ],
            dtype=torch.float64,
        )

    def _value(self, output: Tensor, y: Tensor) -> float:
        with torch.inference_mode(mode=False), torch.no_grad():
            found = self.code(output.cpu().clone(memory_format=torch.contiguous_format), y.cpu().clone())
        try:
            return float(found)
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(
                f"{arg('metric', self.code.name)} returns {shown(found)}; return one number"
            ) from None


@dataclass(frozen=True, slots=True)
class Measures:
    """The measures of a split for one kind of target and loss: sums over its batches, then their values."""

    target: str = CLASS
    loss: Loss = DEFAULT_LOSS
    predicts: bool = True  # outputs can be held against the targets
    embeds: bool = False  # predictions have an embedding
    metric: UserMetric | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The measures' names, the loss first."""
        named = self.loss.name if isinstance(self.loss, NamedLoss) else ""
        return measures(self.target, named)[: None if self.predicts else 1]

    @property
    def all_names(self) -> tuple[str, ...]:
        """The same, recall and the user's metric, which are not measured in training."""
        own = () if self.metric is None else (self.metric.name,)
        return self.names + (RECALL,) * self.embeds + own

    def zeros(self, theta: Tensor) -> Tensor:  # (rows, L)
        """Return sums of nothing."""
        rows = {CLASS: 3, POSITION: 4, FLOAT: 3, MULTI_HOT: 1}[self.target]
        dtype = torch.float64 if self.target == FLOAT else theta.dtype  # squares overflow float32
        return theta.new_zeros(rows, len(theta), dtype=dtype)

    def weight(self, y: Tensor) -> Tensor | int:
        """Count what a batch's mean loss is a mean over: its items, or its positions with a class."""
        by_position = self.target == POSITION and isinstance(self.loss, NamedLoss)
        return counted(y) if by_position else len(y)

    def summed(
        self,
        losses: Tensor,  # (L,), sums already
        outputs: Tensor,  # (L, C, B), or (L, B, …)
        y: Tensor,  # (B, …)
        center: Tensor | None = None,  # of a target of numbers: its mean over the split
    ) -> Tensor:  # (rows, L)
        """Sum the measures over a batch."""
        if self.target == CLASS:
            return summed(losses, outputs, y)
        found = [losses]
        if self.target == POSITION:
            places = counted(y).to(losses.dtype).expand_as(losses)
            found += [*torch.stack([_errors(lane, y) for lane in outputs], dim=1).to(losses.dtype), places]
        elif self.target == FLOAT:
            assert center is not None
            misses = [
                _squares(lane.reshape(y.shape), y) if self.predicts else center.new_zeros(())
                for lane in outputs
            ]
            found += [torch.stack(misses), _squares(center, y).expand_as(losses)]
        return torch.stack(found)

    def means(self, total: Tensor, size: int) -> Tensor:  # (rows, L) → (measures, L)
        """Turn the sums over `size` items into values; all NaN if the loss is not finite."""
        if self.target == POSITION:
            losses = total[:1] / (total[3] if isinstance(self.loss, NamedLoss) else size)
            return means(torch.cat([losses, total[1:3] / total[3]]), 1)
        if self.target == FLOAT:
            # of constant targets 0, as scikit-learn has it
            r2 = torch.where(total[2:] > 0, 1 - total[1:2] / total[2:], 0.0)
            return means(torch.cat([total[:1] / size, r2]), 1)
        return means(total, size)

    def named(self, split: str, values: Tensor) -> dict[str, list[float]]:  # (measures, L)
        """Return every lane's value by metric name; wait for the device."""
        counted_names = [name for name in self.all_names if name != "perplexity"]
        found = dict(zip(counted_names, values.tolist(), strict=False))
        if "perplexity" in self.names:
            found["perplexity"] = [math.exp(min(loss, LARGEST_EXPONENT)) for loss in found["loss"]]
        return {f"{split}_{name}": row for name, row in found.items()}


def summed(losses: Tensor, logits: Tensor, y: Tensor) -> Tensor:  # (L,), (L, C, B), (B,) → (3, L)
    """Sum loss and errors of classes over a batch; `losses` are sums already."""
    chosen = logits.gather(1, y.expand(logits.shape[0], 1, -1))
    rank = (logits > chosen).sum(dim=1, dtype=torch.int32)
    errors = torch.stack([rank >= 1, rank >= 5]).sum(dim=2, dtype=logits.dtype)
    return torch.cat([losses.unsqueeze(0), errors])


def _errors(output: Tensor, y: Tensor) -> Tensor:  # one lane's → (2,)
    """Count positions whose class is not the most likely one, or not among the five most likely."""
    logits, classes = by_class(output, y)
    chosen = logits.gather(1, classes.clamp_min(0).unsqueeze(1))
    rank = (logits > chosen).sum(dim=1, dtype=torch.int32)
    counts = classes != IGNORED
    return torch.stack([((rank >= most) & counts).sum() for most in (1, 5)])


def _squares(predicted: Tensor, y: Tensor) -> Tensor:
    """Sum the squares of errors in float64, as float32 would overflow."""
    return (predicted.double() - y.double()).square().sum()


def recall_at_1(embeddings: Tensor, y: Tensor) -> Tensor:  # (L, D, n), (n,) → (L,)
    """Return the share of items whose nearest other item, by cosine, has their class.

    Of equally near items the first counts; without a finite embedding it is NaN.
    """
    return torch.stack([_recall(lane.t(), y) for lane in embeddings])


def _recall(embedding: Tensor, y: Tensor) -> Tensor:  # (n, D), (n,) → ()
    unit, hits = torch.nn.functional.normalize(embedding, dim=1), embedding.new_zeros(())
    for rows in torch.split(torch.arange(len(y), device=y.device), RECALL_ROWS):
        cos = unit[rows] @ unit.t()
        cos[torch.arange(len(rows), device=y.device), rows] = -math.inf
        nearest = cos.argmax(dim=1)
        hits += ((nearest != rows) & (y[nearest] == y[rows])).sum()
    return torch.where(embedding.isfinite().all(), hits / len(y), math.nan)


def means(total: Tensor, size: int) -> Tensor:  # (measures, L)
    """Turn sums into means; all NaN if the loss is not finite, since then no prediction is right either."""
    found = total / size
    return torch.where(found[0].isfinite(), found, math.nan)


def losses_of(loss: Loss, outputs: Tensor, y: Tensor, target: str = CLASS) -> Tensor:  # (L, …), (B, …) → (L,)
    """Compute every lane's loss, summed over what `Measures.weight` counts."""
    if isinstance(loss, NamedLoss):
        if target == CLASS:
            return loss.of_lanes(outputs, y)
        return torch.stack([loss.total(lane, y) for lane in outputs])
    with torch.inference_mode(mode=False), torch.no_grad():  # it may keep a tensor for training
        lanes = outputs.transpose(1, 2) if target == CLASS else outputs
        return torch.stack([_loss_of(loss, lane, y) for lane in lanes]) * len(y)


def _loss_of(loss: Loss, output: Tensor, y: Tensor) -> Tensor:  # (B, …), (B, …) → ()
    """Compute the mean loss of copies, which it may change; NaN if it raises on non-finite outputs."""
    try:
        return loss(output.clone(memory_format=torch.contiguous_format), y.clone())
    except Exception as error:
        if error.__cause__ is not None and is_out_of_memory(error.__cause__):
            raise error.__cause__ from None  # the caller makes smaller packs then
        if output.isfinite().all():
            raise
        return output.new_tensor(math.nan)


class JoinedOutputs:
    """The outputs of a split, joined batch by batch; memory is allocated once, with the first batch."""

    def __init__(self, count: int, target: str = CLASS) -> None:
        self.count, self.filled = count, 0
        self.dim = 2 if target == CLASS else 1  # of the batch
        self._outputs: Tensor | None = None

    def add(self, outputs: Tensor) -> None:  # (L, C, B) or (L, B, …)
        """Append the next batch."""
        if self._outputs is None:
            shape = list(outputs.shape)
            shape[self.dim] = self.count
            self._outputs = outputs.new_empty(shape)
        size = outputs.shape[self.dim]
        self._outputs.narrow(self.dim, self.filled, size).copy_(outputs)
        self.filled += size

    @property
    def outputs(self) -> Tensor:  # (L, C, count) or (L, count, …)
        """The outputs of every item, in the split's order."""
        assert self._outputs is not None
        assert self.filled == self.count
        return self._outputs


class Diagnostics:
    """One pack's `norm`, `rotation` and `effective_lr`, and `projection` if the update projects.

    They describe what one update per epoch did to the scale-invariant tensors, f(cθ) = f(θ): a step turns
    such a tensor w on its sphere, by η α/‖w‖² times a gradient of unit length for SGD, by about η α/‖w‖ for
    the adaptive families (Heo et al. 2021, section 2), and by about η α for K-FAC, whose steps grow with w
    while its damping is small (Zhang et al. 2018). The first three are missing for a network without such
    tensors. NaN for a lane that has diverged, and for values that are not finite.
    """

    def __init__(
        self, arena: Arena, scale_invariant: Sequence[str], update: Update, family: Family | None
    ) -> None:
        self.arena, self.update = arena, update
        self.parts = [part.columns for part in arena.layout if part.name in scale_invariant]
        self.power = {Family.SGD: 2, Family.SGDP: 2, Family.KFAC: 0}.get(family or Family.ADAM, 1)  # of ‖w‖
        self.curves: dict[str, list[list[float]]] = {}  # name → epoch → lane

    def before(self) -> Tensor | None:
        """Copy θ (L, P) before the measured update; None if no tensor is scale-invariant."""
        return self.arena.theta.clone() if self.parts else None

    def after(
        self,
        theta: Tensor | None,  # (L, P) from `before`; overwritten
        eta: float,
        alive: Tensor,  # (L,) lanes that have not diverged
    ) -> None:
        """Record the effect of the update."""
        found = {} if theta is None else self._turned(theta, eta)
        if (rate := self.update.projection_rate()) is not None:
            found["projection"] = rate
        for name, values in found.items():
            kept = torch.where(alive & torch.isfinite(values), values, torch.nan)
            self.curves.setdefault(name, []).append(kept.tolist())

    def _turned(self, theta: Tensor, eta: float) -> dict[str, Tensor]:  # (L,) each, float64
        start = self._norms(theta)
        moved = self._norms(theta.sub_(self.arena.theta))
        end = self._norms(self.arena.theta)
        alpha = self.update.alpha[:, 0].to(torch.float64)
        return {
            "norm": end.square().sum(dim=1).sqrt(),
            "rotation": angle(start, end, moved).mean(dim=1),
            "effective_lr": (eta * alpha.unsqueeze(1) / start**self.power).mean(dim=1),
        }

    def _norms(self, theta: Tensor) -> Tensor:  # (L, P) → (L, tensors) float64; a lane sums along its row
        norms = [torch.linalg.vector_norm(theta[:, part], dim=1) for part in self.parts]
        return torch.stack(norms, dim=1).to(torch.float64)


def angle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Compute the angle in radians opposite side c of triangles with sides a, b, c ≥ 0; NaN if a or b is 0.

    Kahan's formula uses the lengths only: an arc cosine would lose every angle below √ε.
    """
    a, b = torch.maximum(a, b), torch.minimum(a, b)
    c = c.clamp(a - b, a + b)  # rounding may leave the triangle open
    mu = torch.where(b >= c, c - (a - b), b - (a - c)).clamp_min(0)
    return 2 * torch.atan(torch.sqrt(((a - b) + c) * mu / ((a + (b + c)) * ((a - c) + b))))
