"""Losses by name, and trials of a loss on a batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.nets.randomness import seeded
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import CROSS_ENTROPY

LEAST, MANY = 96, 768  # made-up items: few show a small weight; many are as in a split
NUMBERS = 1 << 22  # in their logits at most
TOLERANCE = 1e-5  # relative; above float32 sums in another order
Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, C) and classes (B,) → their mean loss, one number


def find_loss(name: str) -> Loss:
    """Return the loss of the catalog or the user's. Raises UsageError or UnknownName."""
    if name == CROSS_ENTROPY:
        return functional.cross_entropy
    code = user_code.find("loss", name)
    if isinstance(code.thing, type):
        raise UsageError(
            f"{arg('loss', name)} is a class; name an instance, or a function of logits and labels"
        )
    if isinstance(code.thing, nn.Module) and any(one.requires_grad for one in code.thing.parameters()):
        raise UsageError(
            f"{arg('loss', name)} has parameters, which would not train; move them to the network"
        )
    return code


def label(loss: Loss) -> str:
    """Return the beginning of an error message about a user's loss; empty for the catalog's."""
    return f"{arg(loss.option, loss.name)}: " if isinstance(loss, user_code.UserCode) else ""


def is_mean_over_items(loss: Loss, classes: int) -> bool:
    """Test whether a batch's loss is the mean of its items' losses, so that a split may be scored in batches.

    Then every partition gives the whole: L(whole) = Σ nₚ L(p)/n. Made-up logits of all classes, sure and
    unsure, are divided by class and by how well items are classified, and the batch is doubled and permuted.
    Class weights, ignored labels, sums, rankings and random losses fail.
    """
    if loss is functional.cross_entropy:
        return True
    most = max(LEAST, NUMBERS // classes)
    return all(_adds_up(loss, classes, min(most, count)) for count in (max(LEAST, 3 * classes), MANY))


def _adds_up(loss: Loss, classes: int, count: int) -> bool:
    """Test whether parts of `count` made-up items give the loss of all."""
    logits, y = _made_up(classes, count)
    by_class = y.argsort(stable=True)
    by_fit = functional.cross_entropy(logits, y, reduction="none").argsort(stable=True)
    mixed = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    third = count // 3
    sizes = [1, third, count - third - 1]
    with seeded(0), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            whole = _value(loss, logits, y)
            again = [_value(loss, logits.repeat(2, 1), y.repeat(2)), _value(loss, logits[mixed], y[mixed])]
            parts = [
                [_value(loss, logits[part], y[part]) for part in order.split(sizes)]  # type: ignore[no-untyped-call]
                for order in (by_class, by_class.flip(0), by_fit)
            ]
        except Exception:  # it rejects a part; a loss that rejects every batch is refused later
            return False
    scale = abs(whole)
    for values in parts:
        again.append(sum(n * value for n, value in zip(sizes, values, strict=True)) / count)
        scale = max(scale, sum(n * abs(value) for n, value in zip(sizes, values, strict=True)) / count)
    return all(abs(value - whole) <= TOLERANCE * scale for value in again)  # False for NaN


def refuse_state(loss: Loss, name: str, classes: int) -> None:
    """Raise UsageError if a batch's loss changes when the batch comes again: all lanes share the loss.

    Another batch comes in between, which a stateful loss would remember. The loss's own exceptions are
    left to training.
    """
    logits, y = _made_up(classes, LEAST)
    values = []
    with torch.no_grad(), warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        for batch in ((logits, y), (logits.flip(0) - 1, y.flip(0)), (logits, y)):
            with seeded(0):
                values.append(_value(loss, *batch))
    values = [value for value in values if not math.isnan(value)]
    if len(values) == 3 and not math.isclose(values[0], values[2], rel_tol=TOLERANCE):
        raise UsageError(
            f"{arg('loss', name)} gives another value when the same batch comes again, and all lanes share "
            "it; keep no counter, average or memory in it, and draw nothing at random"
        )


def _made_up(classes: int, count: int) -> tuple[Tensor, Tensor]:  # (n, C), (n,)
    """Make logits on several scales, many of them right, and labels of unequal frequencies."""
    stream = torch.Generator().manual_seed(0)
    spread = torch.linspace(0, classes - 1, min(classes, count // 2)).round().long()  # all classes, if few
    y = torch.cat([spread, torch.randint(classes, (count - len(spread),), generator=stream)])
    scale = torch.logspace(-1, 1, count)[torch.randperm(count, generator=stream)].unsqueeze(1)
    right = functional.one_hot(y, classes) * torch.randint(2, (count, 1), generator=stream)
    return scale * (torch.randn(count, classes, generator=stream) + 2 * right), y


def _value(loss: Loss, logits: Tensor, y: Tensor) -> float:
    """Compute the loss of copies, which it may change in place."""
    return float(loss(logits.clone(), y.clone()))
