"""The loss by name, and the cross-entropy with its gradient, for networks that write out their own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.seeded import seeded
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import CROSS_ENTROPY

LEAST, MANY = 96, 768  # items that a loss is tried on: few, which show a small weight, and as a split has
NUMBERS = 1 << 22  # in their logits at most
TOLERANCE = 1e-5  # relative: float32 sums in another order are below
Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, C) and classes (B,) → their mean loss, one number


def find_loss(name: str) -> Loss:
    """The loss of that name in the catalog, or somebody's own. Raises UsageError or UnknownName."""
    if name == CROSS_ENTROPY:
        return functional.cross_entropy
    code = user_code.find("--loss", name)
    if isinstance(code.thing, type):
        raise UsageError(f"--loss {name} is a class; name an instance, or a function of logits and labels")
    if isinstance(code.thing, nn.Module) and any(one.requires_grad for one in code.thing.parameters()):
        raise UsageError(f"--loss {name} has parameters, which would not train; let the network have them")
    return code


def label(loss: Loss) -> str:
    """What a complaint about it begins with; nothing where it is nobody's own."""
    return f"{loss.option} {loss.name}: " if isinstance(loss, user_code.UserCode) else ""


def is_mean_over_items(loss: Loss, classes: int) -> bool:
    """Whether a batch's loss is the mean of its items' losses, so that a split may be scored in batches.

    Then any parts give the whole: L(whole) = Σ nₚ L(p)/n. This is tried on made-up logits, sure and unsure,
    of all classes: on parts by class, and by how well items are classified; on a batch doubled and permuted.
    Weights of classes, labels that are left out, sums, rankings and random losses fail.
    """
    if loss is functional.cross_entropy:
        return True
    most = max(LEAST, NUMBERS // classes)
    return all(_adds_up(loss, classes, min(most, count)) for count in (max(LEAST, 3 * classes), MANY))


def _adds_up(loss: Loss, classes: int, count: int) -> bool:
    """Whether parts of so many made-up items give the loss of all."""
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
        except Exception:  # of a part that it does not take; what it does not take at all is refused later
            return False
    scale = abs(whole)
    for values in parts:
        again.append(sum(n * value for n, value in zip(sizes, values, strict=True)) / count)
        scale = max(scale, sum(n * abs(value) for n, value in zip(sizes, values, strict=True)) / count)
    return all(abs(value - whole) <= TOLERANCE * scale for value in again)  # NaN is not


def refuse_state(loss: Loss, name: str, classes: int) -> None:
    """Raise UsageError where a batch has another loss when it comes again: all lanes share the loss.

    In between it sees another batch, which a memory would keep. What it does not take is refused later.
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
            f"--loss {name} gives another value when the same batch comes again, and all lanes share it; "
            "keep no counter, average or memory in it, and draw nothing at random"
        )


def _made_up(classes: int, count: int) -> tuple[Tensor, Tensor]:  # (n, C), (n,)
    """Logits on several scales, many of them right, and labels of which some are more frequent."""
    stream = torch.Generator().manual_seed(0)
    spread = torch.linspace(0, classes - 1, min(classes, count // 2)).round().long()  # all, or some of all
    y = torch.cat([spread, torch.randint(classes, (count - len(spread),), generator=stream)])
    scale = torch.logspace(-1, 1, count)[torch.randperm(count, generator=stream)].unsqueeze(1)
    right = functional.one_hot(y, classes) * torch.randint(2, (count, 1), generator=stream)
    return scale * (torch.randn(count, classes, generator=stream) + 2 * right), y


def _value(loss: Loss, logits: Tensor, y: Tensor) -> float:
    """Of copies, which it may change."""
    return float(loss(logits.clone(), y.clone()))


def cross_entropy(logits: Tensor, y: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    """Every lane's mean over the batch, (L,), and its gradient by the logits: (softmax − one-hot)/B.

    Of logits (L, C, B) and classes y (B,); `one_hot` is the identity (C, C) in their type.
    """
    log_p = torch.log_softmax(logits, dim=1)
    losses = -log_p.gather(1, y.expand(len(log_p), 1, -1)).mean(dim=(1, 2))
    return losses, log_p.exp_().sub_(one_hot.index_select(1, y)).div_(len(y))
