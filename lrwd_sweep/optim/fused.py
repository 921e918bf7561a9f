"""The whole update in one pass over the arena: Triton's kernels, where they run and agree with torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from lrwd_sweep.optim.kernel_call import kernel_call
from lrwd_sweep.optim.step import StepFamily
from lrwd_sweep.optim.tabled import DeviceUpdate, TabledUpdate
from lrwd_sweep.optim.update import Update

BLOCK = 1024  # columns of one program: 8 for each thread of its four warps; not tuned on a GPU yet
TOLERANCE = 1e-5  # of the largest number; rounding makes a tenth of it, a wrong letter far more


@dataclass(frozen=True, slots=True)
class FusedUpdate:
    """What a `TabledUpdate` does, in one kernel; of a lane that has died nothing changes.

    For a contiguous arena of float32. Raises ImportError where there is no Triton, and whatever Triton
    raises where it cannot run.
    """

    update: Update
    table: Tensor  # (steps, 4), of `now.table`
    decays: Tensor  # (P,) uint8: 1 for the columns that decay
    kernel: Any  # one of `kernels`
    arguments: Sequence[Tensor | float]  # moments and hyperparameters, as the kernel orders them
    modes: dict[str, object]  # what it is compiled for
    block: int = BLOCK

    @classmethod
    def of(cls, tabled: TabledUpdate, columns: int, block: int = BLOCK) -> FusedUpdate:
        """In the place of a `TabledUpdate`, for an arena of so many columns."""
        decay = tabled.update.decay
        decays = torch.zeros(columns, dtype=torch.uint8, device=tabled.table.device)
        for part in decay.whole:
            decays[part] = 1
        kernel, arguments, modes = _kernel(tabled.update.family)
        modes |= {
            "RULE": decay.rule.value,
            "NORMALIZED": decay.normalized,
            "ALL": bool(decays.all()),
            "BLOCK": block,
            "enable_fp_fusion": True,  # which Triton asks to be said
        }
        return cls(tabled.update, tabled.table, decays, kernel, arguments, modes, block)

    def apply(self, theta: Tensor, g: Tensor, t: Tensor, died_at: Tensor) -> None:
        """Update θ (L, P) in place at step t; g is left as it is."""
        lanes, columns = theta.shape
        programs = lanes * -(-columns // self.block)
        self.kernel[(programs,)](*self.arguments_of(theta, g, t, died_at), **self.modes)

    def arguments_of(self, theta: Tensor, g: Tensor, t: Tensor, died_at: Tensor) -> list[Tensor | float]:
        """All that the kernel takes besides its modes, in its order."""
        update, columns = self.update, theta.shape[1]
        where = [theta, g, update.alpha, update.lam, died_at, t, self.table, self.decays]
        return [*where, columns, *self.arguments]


def _kernel(family: StepFamily) -> tuple[Any, Sequence[Tensor | float], dict[str, object]]:
    """A family's kernel, what it takes, and the modes that are the family's own."""
    from lrwd_sweep.optim import kernels  # noqa: PLC0415  # not every machine has Triton

    call = kernel_call(family)
    if call is None:
        raise TypeError(f"{type(family).__name__} needs sums over whole tensors")
    some = family.moments()[0]  # a pointer in the place of a moment that is not there, and is not read
    arguments = [some if x is None else x for x in call.arguments]
    return getattr(kernels, call.name), arguments, {**call.modes}


def fastest(tabled: TabledUpdate, theta: Tensor) -> DeviceUpdate:  # (L, P)
    """The kernel where there is one for this arena, and it gives what torch gives; else `tabled`."""
    elementwise, columns = tabled.update.projection is None, theta.shape[1]
    if theta.is_cuda and theta.dtype is torch.float32 and elementwise and agrees(tabled, columns):
        return FusedUpdate.of(tabled, columns)
    return tabled


@torch.inference_mode()
def agrees(tabled: TabledUpdate, columns: int, block: int = BLOCK) -> bool:
    """Whether the kernel runs here and does to rounding as torch does, on made-up numbers."""
    try:
        expected, found = (_made_up(tabled, columns, block, fused=fused) for fused in (False, True))
    except Exception:  # no Triton, no compiler for what it generates, a device it does not know, no room
        return False
    return all(
        bool((one - other).abs().max() <= TOLERANCE * one.abs().max())
        for one, other in zip(expected, found, strict=True)
    )


def _made_up(tabled: TabledUpdate, columns: int, block: int, *, fused: bool) -> list[Tensor]:
    """θ and moments of two lanes after three updates, and θ of a third that is dead and has no gradient."""
    numbers, update = tabled.table, tabled.update
    stream = torch.Generator(numbers.device).manual_seed(0)
    theta, *gradients = torch.randn(
        4, 3, columns, generator=stream, device=numbers.device, dtype=numbers.dtype
    )
    moments = {
        field.name: torch.zeros_like(theta)
        for field in fields(update.family)  # type: ignore[arg-type]  # every family is a dataclass
        if isinstance(getattr(update.family, field.name), Tensor)
    }
    mine = TabledUpdate(
        replace(
            update,
            family=replace(update.family, **moments),  # type: ignore[type-var]
            alpha=theta.new_tensor([[0.5], [0.5], [0.1]]),
            lam=theta.new_tensor([[0.5], [0.5], [0.1]]),
        ),
        numbers,
    )
    way = FusedUpdate.of(mine, columns, block) if fused else mine
    died_at = torch.tensor([-1, 0, -1], device=numbers.device)
    for k, g in enumerate(gradients):
        g[1] = torch.nan
        t = (len(numbers) - 1) * k // 2  # the first row, one in the middle, the last
        way.apply(theta, g, torch.tensor([t], device=numbers.device), died_at)
    return [theta, *(moment[::2] for moment in mine.update.family.moments())]
