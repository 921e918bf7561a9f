"""Losses by name, and trials of a loss on a batch."""

import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.nets.network import Loss, by_class, targets
from lrwd_sweep.nets.randomness import seeded
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import (
    BCE,
    CLASS,
    CROSS_ENTROPY,
    HUBER,
    IGNORED,
    L1,
    LOSSES,
    MSE,
    NLL,
    POSITION,
    DataSet,
)

LEAST, MANY = 96, 768  # made-up items: few show a small weight; many are as in a split
NUMBERS = 1 << 22  # in their outputs at most
_FEWEST = 4  # of items, where one has many outputs
_MASKED = 0.3  # of made-up positions
TOLERANCE = 1e-5  # relative; above float32 sums in another order

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    CROSS_ENTROPY: functional.cross_entropy,
    NLL: functional.nll_loss,
    MSE: functional.mse_loss,
    L1: functional.l1_loss,
    HUBER: functional.huber_loss,
    BCE: functional.binary_cross_entropy_with_logits,
}


@dataclass(frozen=True, slots=True)
class NamedLoss:
    """A loss of the catalog: the mean over all numbers of a batch, or over the positions that count."""

    name: str = CROSS_ENTROPY
    smoothing: float = 0.0  # of training's labels
    logit_decay: float = 0.0  # λ_C of the regularised softmax of ND-Adam (Zhang et al. 2017), in training

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        smoothed = {"label_smoothing": self.smoothing} if self.smoothing else {}
        output, y = self._aligned(output, y)
        mean = _FUNCTIONS[self.name](output, y, **smoothed)
        return mean + self.logit_decay * _half_square(output, y) if self.logit_decay else mean

    def total(self, output: Tensor, y: Tensor) -> Tensor:
        """Sum over the items of a batch, or the positions that count, without smoothing and penalty."""
        each = _FUNCTIONS[self.name](*self._aligned(output, y), reduction="none")
        return each.sum() if self._of_classes else each.sum() / max(1, y[:1].numel())

    def of_lanes(self, logits: Tensor, y: Tensor) -> Tensor:  # (L, C, B), (B,) → (L,)
        """Sum over the items of a batch for every lane, without smoothing and penalty."""
        return _FUNCTIONS[self.name](logits, y.expand(len(logits), -1), reduction="none").sum(dim=1)

    @property
    def _of_classes(self) -> bool:
        return CLASS in LOSSES[self.name]

    def _aligned(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return by_class(output, y) if self._of_classes else (output.reshape(y.shape), y)


def _half_square(logits: Tensor, y: Tensor) -> Tensor:  # (N, C), (N,)
    """Return the mean of ½‖z‖² over the logits z that count."""
    counts = y != IGNORED
    squares = logits.square().sum(dim=1)
    return torch.where(counts, squares, 0).sum() / (2 * counts.sum())


DEFAULT_LOSS = NamedLoss()


def find_loss(name: str, smoothing: float = 0.0, logit_decay: float = 0.0) -> Loss:
    """Return the loss of the catalog or the user's. Raises UsageError or UnknownName."""
    if name in LOSSES:
        return NamedLoss(name, smoothing, logit_decay)
    code = user_code.find("loss", name)
    if isinstance(code.thing, type):
        raise UsageError(
            f"{arg('loss', name)} is a class; name an instance, or a function of outputs and targets"
        )
    if isinstance(code.thing, nn.Module) and any(one.requires_grad for one in code.thing.parameters()):
        raise UsageError(
            f"{arg('loss', name)} has parameters, which would not train; move them to the network"
        )
    return UserLoss(code)


@dataclass(frozen=True, slots=True)
class UserLoss:
    """A loss of the user, averaged if it gives one number per item."""

    code: user_code.UserCode

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        value: Tensor = self.code(output, y)
        per_item = isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(y)
        return value.mean() if per_item else value


def label(loss: Loss) -> str:
    """Return the beginning of an error message about a user's loss; empty for the catalog's."""
    return f"{arg('loss', loss.code.name)}: " if isinstance(loss, UserLoss) else ""


def is_mean_over_items(loss: Loss, item: DataSet, output: tuple[int, ...] | None = None) -> bool:
    """Test whether a batch's loss is the mean of its items' losses, so that a split may be scored in batches.

    Then every partition gives the whole: L(whole) = Σ nₚ L(p)/n. Made-up outputs (of shape `output` per
    item), sure and unsure, are divided by class and by how well items are predicted, and the batch is doubled
    and permuted. Class weights, ignored labels, sums, rankings and random losses fail. The catalog's losses
    are summed over what counts.
    """
    if isinstance(loss, NamedLoss):
        return True
    output = output or item.output_shapes[0]
    least, most = _least(item, output), NUMBERS // max(1, math.prod(output))
    return all(
        _adds_up(loss, item, output, max(least, min(most, count)))
        for count in (max(LEAST, 3 * item.classes), MANY)
    )


def _least(item: DataSet, output: tuple[int, ...]) -> int:
    return LEAST if item.target == CLASS else max(_FEWEST, min(LEAST, NUMBERS // max(1, math.prod(output))))


def _adds_up(loss: Loss, item: DataSet, output: tuple[int, ...], count: int) -> bool:
    """Test whether parts of `count` made-up items give the loss of all."""
    made, y = _made_up(item, output, count)
    by_value = y.flatten(1)[:, 0].argsort(stable=True) if y.dim() > 1 else y.argsort(stable=True)
    by_fit = _misfit(item, made, y).argsort(stable=True)
    mixed = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    third = count // 3
    sizes = [1, third, count - third - 1]
    twice = torch.arange(count).repeat(2)
    with seeded(0), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            whole = _value(loss, made, y)
            again = [_value(loss, made[order], y[order]) for order in (twice, mixed)]
            parts = [
                [_value(loss, made[part], y[part]) for part in order.split(sizes)]  # type: ignore[no-untyped-call]
                for order in (by_value, by_value.flip(0), by_fit)
            ]
        except Exception:  # it rejects a part; a loss that rejects every batch is refused later
            return False
    scale = abs(whole)
    for values in parts:
        again.append(sum(n * value for n, value in zip(sizes, values, strict=True)) / count)
        scale = max(scale, sum(n * abs(value) for n, value in zip(sizes, values, strict=True)) / count)
    return all(abs(value - whole) <= TOLERANCE * scale for value in again)  # False for NaN


def refuse_state(loss: Loss, name: str, item: DataSet, output: tuple[int, ...] | None = None) -> None:
    """Raise UsageError if a batch's loss changes when the batch comes again: all lanes share the loss.

    Another batch comes in between, which a stateful loss would remember. The loss's own exceptions are
    left to training.
    """
    output = output or item.output_shapes[0]
    made, y = _made_up(item, output, _least(item, output))
    values = []
    with torch.no_grad(), warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        for batch in ((made, y), (made.flip(0) - 1, y.flip(0)), (made, y)):
            with seeded(0):
                values.append(_value(loss, *batch))
    values = [value for value in values if not math.isnan(value)]
    if len(values) == 3 and not math.isclose(values[0], values[2], rel_tol=TOLERANCE):
        raise UsageError(
            f"{arg('loss', name)} gives another value when the same batch comes again, and all lanes share "
            "it; keep no counter, average or memory in it, and draw nothing at random"
        )


def _misfit(item: DataSet, made: Tensor, y: Tensor) -> Tensor:  # (n,)
    """Measure how badly made-up outputs predict their targets."""
    if item.target == CLASS:
        return functional.cross_entropy(made, y, reduction="none")
    if item.target == POSITION:
        each = functional.cross_entropy(*by_class(made, y), reduction="none")
        return each.view(len(y), -1).sum(dim=1)
    if made.shape[1:].numel() == y.shape[1:].numel():
        return (made.flatten() - y.flatten()).abs().view(len(y), -1).sum(dim=1)
    return made.reshape(len(y), -1).sum(dim=1)


def _made_up(item: DataSet, output: tuple[int, ...], count: int) -> tuple[Tensor, Tensor]:
    """Make outputs (n, *output) on several scales, many of them right, and targets of unequal frequencies."""
    stream = torch.Generator().manual_seed(0)
    if item.classes == 0:
        scale = torch.logspace(-1, 1, count).view(-1, *[1] * len(output))
        return scale * torch.randn(count, *output, generator=stream), targets(item, count, stream)
    shape, classes = item.target_shape, item.classes
    logits, y = _logits(classes, count * math.prod(shape), stream)
    if item.target == CLASS:
        return logits, y
    logits, y = logits.view(count, *shape, classes), y.view(count, *shape)
    if item.masked:
        y = torch.where(torch.rand(y.shape, generator=stream) < _MASKED, IGNORED, y)
    return logits if logits.shape[1:] == output else logits.movedim(-1, 1), y


def _logits(classes: int, count: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:  # (n, C), (n,)
    spread = torch.linspace(0, classes - 1, min(classes, count // 2)).round().long()  # all classes, if few
    y = torch.cat([spread, torch.randint(classes, (count - len(spread),), generator=stream)])
    scale = torch.logspace(-1, 1, count)[torch.randperm(count, generator=stream)].unsqueeze(1)
    right = functional.one_hot(y, classes) * torch.randint(2, (count, 1), generator=stream)
    return scale * (torch.randn(count, classes, generator=stream) + 2 * right), y


def _value(loss: Loss, output: Tensor, y: Tensor) -> float:
    """Compute the loss of copies, which it may change in place."""
    return float(loss(output.clone(), y.clone()))
