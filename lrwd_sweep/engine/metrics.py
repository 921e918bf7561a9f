"""Metrics of a pack: loss and errors on every split, and diagnostics of the last update of every epoch."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lrwd_sweep.data import EVAL_BATCH, Split
from lrwd_sweep.engine.device import is_out_of_memory
from lrwd_sweep.engine.lane_state import Arena
from lrwd_sweep.errors import UsageError, arg, shown
from lrwd_sweep.nets.loss import NamedLoss
from lrwd_sweep.nets.network import Loss, Network, Predictor, by_class, counted, fits
from lrwd_sweep.optim import Update
from lrwd_sweep.science.optimizer import Family
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import (
    CLASS,
    EMBEDDINGS,
    FLOAT,
    IGNORED,
    MULTI_HOT,
    POSITION,
    RECALL,
    measures,
    metric_of,
)
from lrwd_sweep.spec.task import Task
from lrwd_sweep.spec.user_code import UserCode

LARGEST_EXPONENT = 700  # of a perplexity in float64
RECALL_ROWS = 512  # of cosines at a time


class Measures:
    """The measures of a task, the loss first: sums over the batches of a split, then their values.

    A user's metric is a function of the outputs and targets of a whole split. It and the recall of embeddings
    are not measured in training. Raises UsageError or UnknownName if the function cannot be imported.
    """

    def __init__(self, task: Task, net: Network) -> None:
        item = task.data_set
        self.target, self.classes = item.target, item.classes
        self.loss, self.whole = net.way.loss, task.whole_loss
        self.predicts = fits(net.output, item)  # outputs can be held against the targets
        self.embeds = task.net in EMBEDDINGS  # predictions have an embedding
        self.metric = user_code.find("metric", task.measure) if task.measure else None
        self.size, self.by_item = task.eval_batch_size or EVAL_BATCH, net.by_item
        named = self.loss.name if isinstance(self.loss, NamedLoss) else ""
        self.names = measures(self.target, named)[: None if self.predicts else 1]
        own = (metric_of(task.measure).removeprefix("val_"),) if task.measure else ()
        self.all_names = self.names + (RECALL,) * self.embeds + own

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
        center: Tensor | None,  # of a target of numbers: its mean over the split
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

    def means(self, total: Tensor, size: int, alive: Tensor) -> Tensor:  # (rows, L), (L,) → (measures, L)
        """Turn the sums over `size` items into values.

        NaN if the loss is not finite, and for a diverged lane, whose loss may be finite where it stopped.
        """
        if self.target == POSITION:
            losses = total[:1] / (total[3] if isinstance(self.loss, NamedLoss) else size)
            total, size = torch.cat([losses, total[1:3] / total[3]]), 1
        elif self.target == FLOAT:
            # of constant targets 0, as scikit-learn has it
            r2 = torch.where(total[2:] > 0, 1 - total[1:2] / total[2:], 0.0)
            total, size = torch.cat([total[:1] / size, r2]), 1
        found = total / size
        return torch.where(found[0].isfinite() & alive, found, math.nan)

    @torch.inference_mode()
    def of_split(self, predictor: Predictor, split: Split, alive: Tensor, like: Tensor) -> Tensor:
        """Measure every lane (measures, L) on a split; `alive` is (L,), `like` θ.

        A loss that is not a mean over items gets the outputs of the whole split at once, and a network whose
        outputs depend on their batch gets all its items.
        """
        total, found, embeddings = self.zeros(like), JoinedOutputs(len(split)), JoinedOutputs(len(split))
        targets: list[Tensor] = []
        item_dim = 2 if self.target == CLASS else 1
        for x, y in split.batches(self.size if self.by_item else len(split)):
            outputs = predictor.predict(x)
            if self.embeds:
                embeddings.add(outputs[:, self.classes :], 2)
                outputs = outputs[:, : self.classes]
            losses = outputs.new_zeros(len(outputs)) if self.whole else self.losses(outputs, y)
            total += self.summed(losses, outputs, y, split.center)
            if self.whole or self.metric:
                found.add(outputs, item_dim)
            if self.whole or self.metric or self.embeds:
                targets.append(y)
        if self.whole:
            total[0] = self.losses(found.outputs, torch.cat(targets))
        rows = [self.means(total, len(split), alive)]
        if self.embeds:
            recalls = recall_at_1(embeddings.outputs, torch.cat(targets))
            rows.append(torch.where(alive, recalls, math.nan).to(total).unsqueeze(0))
        if self.metric is not None:
            y = torch.cat(targets)
            values = [
                _value(self.metric, lane, y) if lives and bool(lane.isfinite().all()) else math.nan
                for lane, lives in zip(self._by_item(found.outputs), alive.tolist(), strict=True)
            ]
            rows.append(torch.tensor(values, dtype=torch.float64).to(total).unsqueeze(0))
        return torch.cat(rows)

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:  # (L, C, B) or (L, B, …), (B, …) → (L,)
        """Compute every lane's loss, summed over what `weight` counts."""
        if isinstance(self.loss, NamedLoss):
            if self.target == CLASS:
                return self.loss.of_lanes(outputs, y)
            return torch.stack([self.loss.total(lane, y) for lane in outputs])
        with torch.inference_mode(mode=False), torch.no_grad():  # it may keep a tensor for training
            return torch.stack([_loss(self.loss, lane, y) for lane in self._by_item(outputs)]) * len(y)

    def _by_item(self, outputs: Tensor) -> Tensor:  # (L, C, B) or (L, B, …) → (L, B, …)
        return outputs.transpose(1, 2) if self.target == CLASS else outputs

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


def _loss(loss: Loss, output: Tensor, y: Tensor) -> Tensor:  # (B, …), (B, …) → ()
    """Compute the mean loss of copies, which it may change; NaN if it raises on non-finite outputs."""
    try:
        return loss(output.clone(memory_format=torch.contiguous_format), y.clone())
    except Exception as error:
        if error.__cause__ is not None and is_out_of_memory(error.__cause__):
            raise error.__cause__ from None  # the caller makes smaller packs then
        if output.isfinite().all():
            raise
        return output.new_tensor(math.nan)


def _value(metric: UserCode, output: Tensor, y: Tensor) -> float:  # (n, …), (n, …)
    """Compute a user's metric of one lane on the CPU. Raises UsageError."""
    with torch.inference_mode(mode=False), torch.no_grad():
        found = metric(output.cpu().clone(memory_format=torch.contiguous_format), y.cpu().clone())
    try:
        return float(found)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"{arg('metric', metric.name)} returns {shown(found)}; return one number") from None


class JoinedOutputs:
    """The outputs of a split, joined batch by batch in memory that is allocated with the first one."""

    outputs: Tensor  # (L, C, n) or (L, n, …)

    def __init__(self, count: int) -> None:
        self.count, self.filled = count, 0

    def add(self, outputs: Tensor, dim: int) -> None:  # (L, C, B) or (L, B, …)
        """Append the next batch along the dimension of its items."""
        if not self.filled:
            self.outputs = outputs.new_empty([*outputs.shape[:dim], self.count, *outputs.shape[dim + 1 :]])
        self.outputs.narrow(dim, self.filled, outputs.shape[dim]).copy_(outputs)
        self.filled += outputs.shape[dim]


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
