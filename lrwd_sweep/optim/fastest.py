"""Kernels in the place of torch's operators, where they run and agree with them."""

from __future__ import annotations

import logging
from dataclasses import fields, replace

import torch
from torch import Tensor

from lrwd_sweep.errors import brief
from lrwd_sweep.optim.fused import FusedUpdate
from lrwd_sweep.optim.fused_projection import FusedProjection
from lrwd_sweep.optim.projection import Projection
from lrwd_sweep.optim.tabled import DeviceUpdate, TabledUpdate
from lrwd_sweep.optim.update import Update

TOLERANCE = 1e-5  # of the largest number; rounding makes a tenth of it, a wrong letter far more

_log = logging.getLogger(__name__)


def fastest(tabled: TabledUpdate, theta: Tensor) -> DeviceUpdate:  # (L, P)
    """The kernels where there are some for this arena, and they give what torch gives; else `tabled`."""
    columns = theta.shape[1]
    if theta.is_cuda and theta.dtype is torch.float32 and agrees(tabled, columns):
        return by_kernels(tabled, columns)
    return tabled


def by_kernels(tabled: TabledUpdate, columns: int, block: int | None = None) -> DeviceUpdate:
    """The same update by kernels, which take `block` numbers at a time. Raises whatever Triton raises."""
    way = FusedUpdate if tabled.update.projection is None else FusedProjection
    return way.of(tabled, columns) if block is None else way.of(tabled, columns, block)


@torch.inference_mode()
def agrees(tabled: TabledUpdate, columns: int, block: int | None = None) -> bool:
    """Whether the kernels run here and do to rounding as torch does, on made-up numbers."""
    try:
        expected = _made_up(tabled, columns)
        found = _made_up(tabled, columns, block, kernels=True)
    except Exception as error:  # no Triton, no compiler for its launcher, an unknown device, no room
        _log.info("updates are torch's operators, which is slower: no kernels (%s)", brief(error))
        return False
    agree = all(
        bool((one - other).abs().max() <= TOLERANCE * one.abs().max())
        for one, other in zip(expected, found, strict=True)
    )
    if not agree:
        _log.info("updates are torch's operators, which is slower: the kernels give something else")
    return agree


def _made_up(
    tabled: TabledUpdate, columns: int, block: int | None = None, *, kernels: bool = False
) -> list[Tensor]:
    """θ and moments of two lanes after three updates, and θ of a third that is dead and has no gradient.

    Where there is a projection it acts by rows in one, by tensors in the other; how often comes too.
    """
    numbers = tabled.table
    stream = torch.Generator(numbers.device).manual_seed(0)
    theta, *gradients = torch.randn(
        4, 3, columns, generator=stream, device=numbers.device, dtype=numbers.dtype
    )
    mine = TabledUpdate(_for_three(tabled.update, theta), numbers)
    projection = mine.update.projection
    way = by_kernels(mine, columns, block) if kernels else mine
    died_at = torch.tensor([-1, 0, -1], device=numbers.device)
    for k, g in enumerate(gradients):
        g[1] = torch.nan
        if projection is not None and k > 0:
            _turn_across(theta[0], g[0], projection, by_row=True)
            _turn_across(theta[2], g[2], projection, by_row=False)
        t = (len(numbers) - 1) * k // 2  # the first row, one in the middle, the last
        way.apply(theta, g, torch.tensor([t], device=numbers.device), died_at)
    found = [] if projection is None else [projection.take_rate()]
    return [theta, *(x[::2] for x in (*mine.update.family.moments(), *found))]


def _for_three(update: Update, theta: Tensor) -> Update:  # (3, P)
    """The same update of three lanes, with nothing behind it."""
    family, projection = update.family, update.projection
    state: dict[str, object] = {
        field.name: torch.zeros_like(theta)
        for field in fields(family)  # type: ignore[arg-type]  # every family is a dataclass
        if isinstance(getattr(family, field.name), Tensor)
    }
    if projection is not None:
        projection = replace(projection, found=projection.found.new_zeros(3))
        state["projection"] = projection
    strengths = theta.new_tensor([[0.5], [0.5], [0.1]])
    return replace(
        update,
        family=replace(family, **state),  # type: ignore[type-var]
        projection=projection,
        alpha=strengths,
        lam=strengths,
    )


def _turn_across(theta: Tensor, g: Tensor, projection: Projection, *, by_row: bool) -> None:  # (P,), (P,)
    """Take from one lane's g what lies along θ in every row of the watched tensors, or in each as a whole."""
    for tensor in projection.tensors:
        rows = tensor.shape[0] if by_row else 1
        x, d = (y[tensor.columns].view(rows, -1) for y in (theta, g))
        d.sub_(x * ((x * d).sum(1, keepdim=True) / (x * x).sum(1, keepdim=True)))
