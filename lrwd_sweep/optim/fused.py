"""The whole update in one pass over the arena: Triton's kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrwd_sweep.optim.kernel_call import kernel_call
from lrwd_sweep.optim.step import StepFamily
from lrwd_sweep.optim.tabled import TabledUpdate
from lrwd_sweep.optim.update import Update

BLOCK = 1024  # columns of one program: 8 for each thread of its four warps; not tuned on a GPU yet


class Launch(NamedTuple):
    """A kernel, in how many programs it runs, and all that it takes, in its order."""

    kernel: Any  # one of `kernels` or `projected_kernels`
    programs: int
    arguments: Sequence[Tensor | float]
    modes: Mapping[str, object]  # what it is compiled for

    def run(self) -> None:
        """Hand it to the device."""
        # Triton asks that fusion be said.
        self.kernel[(self.programs,)](*self.arguments, **self.modes, enable_fp_fusion=True)


@dataclass(frozen=True, slots=True)
class FusedUpdate:
    """What a `TabledUpdate` does, in one kernel; of a lane that has died nothing changes.

    For a contiguous arena of float32, and a family whose every number needs no other. Raises ImportError
    where there is no Triton, and whatever Triton raises where it cannot run.
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
        }
        return cls(tabled.update, tabled.table, decays, kernel, arguments, modes, block)

    def apply(self, theta: Tensor, g: Tensor, t: Tensor, died_at: Tensor) -> None:
        """Update θ (L, P) in place at step t; g is left as it is."""
        for launch in self.launches(theta, g, t, died_at):
            launch.run()

    def launches(self, theta: Tensor, g: Tensor, t: Tensor, died_at: Tensor) -> list[Launch]:
        """The one kernel."""
        update, (lanes, columns) = self.update, theta.shape
        where = [theta, g, update.alpha, update.lam, died_at, t, self.table, self.decays]
        programs = lanes * -(-columns // self.block)
        return [Launch(self.kernel, programs, [*where, columns, *self.arguments], self.modes)]


def _kernel(family: StepFamily) -> tuple[Any, Sequence[Tensor | float], dict[str, object]]:
    """A family's kernel, what it takes, and the modes that are the family's own."""
    from lrwd_sweep.optim import kernels  # noqa: PLC0415  # not every machine has Triton

    call = kernel_call(family)
    assert call is not None, "the others are projected"
    some = family.moments()[0]  # a pointer in the place of a moment that is not there, and is not read
    arguments = [some if x is None else x for x in call.arguments]
    return getattr(kernels, call.name), arguments, {**call.modes}
