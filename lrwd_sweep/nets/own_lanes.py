"""Lanes of somebody's own network or loss, which may do to its tensors what it likes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf, nan
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.loss import Loss
from lrwd_sweep.nets.module_lanes import ModuleLanes, sometimes_trained

Found = TypeVar("Found")


class OwnLanes(ModuleLanes):
    """Lanes that see nothing of one another, and train as under torch.optim or not at all.

    UsageError is raised where a parameter that trains is without a gradient, where another has one, and where
    one has left the arena. What a lane raises over numbers that are not finite is no error: it has diverged.
    """

    def __init__(
        self,
        module: nn.Module,
        theta: Mapping[str, Tensor],
        grad: Mapping[str, Tensor],
        loss: Loss,
        layout: torch.memory_format,
        precision: str,
        classes: int,
    ) -> None:
        super().__init__(module, theta, grad, loss, layout, precision)
        self.theta, self.grad, self.classes = theta, grad, classes
        self.left_out = [
            {name: one for name, one in lane.named_parameters() if name not in theta} for lane in self.lanes
        ]
        self.in_place: set[tuple[int, bool]] = set()  # lanes after a first step and a first evaluation
        self.diverged: set[int] = set()

    def trained(self, k: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # (), (B, C)
        """As any lane's, on a batch of its own."""
        arena = self.grads[0]  # or any other view of it: a change of one is a new version of all
        before = arena._version
        found = self._unless_diverged(k, lambda: super(OwnLanes, self).trained(k, x.clone(), y))
        if found is None:
            for grad in self.grads:
                grad[k].zero_()
            return x.new_tensor(nan), x.new_full((len(x), self.classes), nan)
        self._check_place(k, task=True)
        missing = arena._version - before < len(self.grads)
        if missing or any(one.grad is not None for one in self.left_out[k].values()):
            self._refuse(k, loss=found[0])
        return found

    def lowered(self, logits: Tensor, y: Tensor) -> Tensor:  # (B, C), (B,) → ()
        """As any lane's, of copies: the logits are measured too. Raises UsageError where nothing trains."""
        loss = super().lowered(logits.clone(), y.clone())
        if not loss.requires_grad:
            raise UsageError("the loss of a batch does not depend on any parameter that trains")
        return loss

    def evaluated(self, k: int, x: Tensor) -> Tensor:  # (B, C)
        """As any lane's; NaN of one that has diverged."""
        found = self._unless_diverged(k, lambda: super(OwnLanes, self).evaluated(k, x))
        if found is None:
            return x.new_full((len(x), self.classes), nan)
        self._check_place(k, task=False)
        return found

    def _unless_diverged(self, k: int, work: Callable[[], Found]) -> Found | None:
        """What a lane's work gives; None where it raises over numbers that are not finite, and ever after."""
        if k in self.diverged:
            return None
        try:
            return work()
        except Exception:
            if not _overflows(self.lanes[k], work):
                raise
            self.diverged.add(k)
            return None

    def _check_place(self, k: int, *, task: bool) -> None:
        if (k, task) in self.in_place:
            return
        self.in_place.add((k, task))
        lane = self.lanes[k]
        found = dict(lane.named_parameters())
        for name, theta in self.theta.items():
            if (one := found.get(name)) is None or one.data_ptr() != theta[k].data_ptr():
                raise UsageError(
                    f"the parameter {name} of {type(lane).__name__} is not where an optimizer looks for it, "
                    "as forward puts another in its place; change its values instead, by .data.copy_()"
                )

    def _refuse(self, k: int, loss: Tensor) -> None:
        """Raise UsageError that names the parameter; a lane that has diverged may do what it likes."""
        if loss.isfinite():
            without = [name for name, grad in self.grad.items() if not grad[k].any()]
            surprising = [name for name, one in self.left_out[k].items() if one.grad is not None]
            raise sometimes_trained(self.lanes[k], surprising, without)


def _overflows(lane: nn.Module, work: Callable[[], object]) -> bool:
    """Whether numbers that are not finite are among a lane's own, or turn up in its work."""
    watch = _Overflow()
    with suppress(Exception), watch:
        for value in (*lane.parameters(), *lane.buffers()):
            watch.see(value)
        work()
    return watch.seen


class _Overflow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator: whether it gives NaN or ∞. What −∞ masks is no overflow."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    def see(self, value: object) -> None:
        """Look at a tensor's numbers."""
        if isinstance(value, Tensor) and value.is_floating_point() and not self.seen:
            self.seen = bool((value.isnan() | (value == inf)).any())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if "empty" not in func._schema.name:  # which gives what was there before
            for value in tree_leaves(out):
                self.see(value)
        return out
