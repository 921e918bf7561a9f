"""The optimizer families in numba: one pass over the arena on a CPU, tested against the torch formulas.

Every loop takes θ (L, P), g (L, P), α (L, 1), the rate of decay (L, 1), η_t, 1 − β₁ᵗ, √(1 − β₂ᵗ), the runs
of columns that decay or do not, given by their ends (runs + 1,) and flags (runs,), and its own moments and
hyperparameters. A moment that a family does not have is None, and so is `cautious` unless decay is it.
Numbers are cast to the arena's type, which they would widen.
"""
# mypy: allow-untyped-defs

import math
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from lrwd_sweep.optim.families import (
    Adagrad,
    Adam,
    Adamp,
    Amsgrad,
    Lion,
    Rmsprop,
    Sgd,
    Sgdp,
    TorchSgd,
)
from lrwd_sweep.optim.jit import compiled
from lrwd_sweep.optim.update import DELTA, CompiledLoop, Decay, Now, Projection, StepFamily, runs
from lrwd_sweep.science.optimizer import WD_RATIO, DecayRule

BLOCK = 4096  # numbers that are multiplied before they are summed by rows: they stay in a core's first cache


@compiled
def decayed(theta, g, share, decays, coupled):
    """Return θ and g of one column after decay; the share is λ′ if coupled, else the share that θ keeps."""
    if not decays:
        return theta, g
    if coupled:
        return theta, g + share * theta
    return theta * share, g


@compiled
def settled(theta, start, step, cautious):
    """Return where a coordinate starts from: undecayed if decay is cautious and the step grows it."""
    if cautious is None:
        return start
    return start if step * theta >= 0 else theta


@compiled
def sgd(
    theta, g, alpha, rates, eta, rest1, root2, ends, decays, coupled, cautious, m, beta1, inside, nesterov
):
    """Update by `Sgd`, which has η_t α inside the buffer, or by `TorchSgd`."""
    kind = theta.dtype.type
    beta1 = kind(beta1)
    for lane in range(len(theta)):
        scale, rate = kind(eta) * alpha[lane, 0], rates[lane, 0]
        share = rate if coupled else kind(1) - rate
        within, beyond = (scale, kind(1)) if inside else (kind(1), scale)
        for k in range(len(decays)):
            run, decaying = slice(ends[k], ends[k + 1]), decays[k]
            x, d, mean = theta[lane, run], g[lane, run], m[lane, run]
            for i in range(len(x)):
                start, slope = decayed(x[i], d[i], share, decaying, coupled)
                slope *= within
                mean[i] = beta1 * mean[i] + slope
                step = slope + beta1 * mean[i] if nesterov else mean[i]
                x[i] = settled(x[i], start, step, cautious) - beyond * step


@compiled
def adam(
    theta, g, alpha, rates, eta, rest1, root2, ends, decays, coupled, cautious,
    m, v, u, rest_of_beta1, beta2, rest_of_beta2, eps,
):  # fmt: skip
    """Update by `Adam`, or by `Amsgrad`, the only one with u."""
    kind = theta.dtype.type
    rest_of_beta1, beta2, rest_of_beta2 = kind(rest_of_beta1), kind(beta2), kind(rest_of_beta2)
    eps = kind(eps * root2)
    for lane in range(len(theta)):
        scale, rate = kind(eta * root2 / rest1) * alpha[lane, 0], rates[lane, 0]
        share = rate if coupled else kind(1) - rate
        for k in range(len(decays)):
            run, decaying = slice(ends[k], ends[k + 1]), decays[k]
            x, d, mean, square = theta[lane, run], g[lane, run], m[lane, run], v[lane, run]
            most = square if u is None else u[lane, run]
            for i in range(len(x)):
                start, slope = decayed(x[i], d[i], share, decaying, coupled)
                first = mean[i] + rest_of_beta1 * (slope - mean[i])
                second = beta2 * square[i] + rest_of_beta2 * slope * slope
                mean[i], square[i] = first, second
                if u is not None:
                    second = second if second > most[i] else most[i]
                    most[i] = second
                step = first / (math.sqrt(second) + eps)
                x[i] = settled(x[i], start, step, cautious) - scale * step


@compiled
def adagrad(theta, g, alpha, rates, eta, rest1, root2, ends, decays, coupled, cautious, v, eps):
    """Update by `Adagrad`."""
    kind = theta.dtype.type
    eps = kind(eps)
    for lane in range(len(theta)):
        scale, rate = kind(eta) * alpha[lane, 0], rates[lane, 0]
        share = rate if coupled else kind(1) - rate
        for k in range(len(decays)):
            run, decaying = slice(ends[k], ends[k + 1]), decays[k]
            x, d, square = theta[lane, run], g[lane, run], v[lane, run]
            for i in range(len(x)):
                start, slope = decayed(x[i], d[i], share, decaying, coupled)
                square[i] += slope * slope
                step = slope / (math.sqrt(square[i]) + eps)
                x[i] = settled(x[i], start, step, cautious) - scale * step


@compiled
def rmsprop(
    theta, g, alpha, rates, eta, rest1, root2, ends, decays, coupled, cautious,
    v, m, beta1, beta2, rest_of_beta2, eps,
):  # fmt: skip
    """Update by `Rmsprop`, which has m if it has momentum."""
    kind = theta.dtype.type
    beta1, beta2, rest_of_beta2, eps = kind(beta1), kind(beta2), kind(rest_of_beta2), kind(eps)
    for lane in range(len(theta)):
        scale, rate = kind(eta) * alpha[lane, 0], rates[lane, 0]
        share = rate if coupled else kind(1) - rate
        for k in range(len(decays)):
            run, decaying = slice(ends[k], ends[k + 1]), decays[k]
            x, d, square = theta[lane, run], g[lane, run], v[lane, run]
            mean = square if m is None else m[lane, run]
            for i in range(len(x)):
                start, slope = decayed(x[i], d[i], share, decaying, coupled)
                square[i] = beta2 * square[i] + rest_of_beta2 * slope * slope
                step = slope / (math.sqrt(square[i]) + eps)
                if m is not None:
                    step += beta1 * mean[i]
                    mean[i] = step
                x[i] = settled(x[i], start, step, cautious) - scale * step


@compiled
def lion(
    theta, g, alpha, rates, eta, rest1, root2, ends, decays, coupled, cautious,
    m, rest_of_beta1, rest_of_beta2,
):  # fmt: skip
    """Update by `Lion`."""
    kind = theta.dtype.type
    rest_of_beta1, rest_of_beta2 = kind(rest_of_beta1), kind(rest_of_beta2)
    for lane in range(len(theta)):
        scale, rate = kind(eta) * alpha[lane, 0], rates[lane, 0]
        share = rate if coupled else kind(1) - rate
        for k in range(len(decays)):
            run, decaying = slice(ends[k], ends[k + 1]), decays[k]
            x, d, mean = theta[lane, run], g[lane, run], m[lane, run]
            for i in range(len(x)):
                start, slope = decayed(x[i], d[i], share, decaying, coupled)
                direction = mean[i] + rest_of_beta1 * (slope - mean[i])
                mean[i] += rest_of_beta2 * (slope - mean[i])
                x[i] = settled(x[i], start, direction, cautious) - scale * np.sign(direction)


class Scratch(NamedTuple):
    """Buffers for one tensor of a lane: it is still in the core's cache when the step needs its row sums."""

    step: np.ndarray  # (widest,)
    products: np.ndarray  # (BLOCK or the longest row,)
    ones: np.ndarray  # (longest row,)
    sums: np.ndarray  # (4, most rows)


@compiled
def row_sums(a, b, rows, scratch, sums):
    """Write the row sums of a·b, both (rows · K,), to sums (rows,)."""
    sums[:] = 0  # BLAS adds to 0 times the old value, which may be NaN
    length = len(a) // rows
    most = max(1, BLOCK // length)
    for first in range(0, rows, most):
        count = min(most, rows - first)
        part = slice(first * length, (first + count) * length)
        left, right, products = a[part], b[part], scratch.products[: count * length]
        for i in range(len(products)):
            products[i] = left[i] * right[i]
        np.dot(products.reshape(count, length), scratch.ones[:length], sums[first : first + count])


@compiled
def is_across(inner, square, square_g, limit, eps):
    """Compare |cos(g, θ)| with the limit, by θ·g, θ·θ and g·g; NaN is not below it."""
    cos = inner / (max(math.sqrt(square), eps) * max(math.sqrt(square_g), eps))
    return abs(cos) < limit


@compiled
def project(theta, g, p, rows, eps, scratch):
    """Apply Π to p of one tensor in place and say if it acted; θ, g and p are (rows · K,)."""
    kind = theta.dtype.type
    length = len(theta) // rows
    inner, square, square_g, radial = (
        scratch.sums[0, :rows], scratch.sums[1, :rows], scratch.sums[2, :rows], scratch.sums[3, :rows],
    )  # fmt: skip
    row_sums(theta, g, rows, scratch, inner)
    row_sums(theta, theta, rows, scratch, square)
    row_sums(g, g, rows, scratch, square_g)
    by_row, limit = True, kind(DELTA / math.sqrt(length))
    for r in range(rows):
        by_row = by_row and is_across(inner[r], square[r], square_g[r], limit, eps)
    whole = kind(DELTA / math.sqrt(len(theta)))
    if not (by_row or is_across(inner.sum(), square.sum(), square_g.sum(), whole, eps)):
        return False
    row_sums(theta, p, rows, scratch, radial)
    if not by_row:
        square[:], radial[:] = square.sum(), radial.sum()
    for r in range(rows):
        part = slice(r * length, (r + 1) * length)
        row, step, norm = theta[part], p[part], math.sqrt(square[r]) + eps
        along = radial[r] / (norm * norm)
        for k in range(length):
            step[k] -= row[k] * along
    return True


@compiled
def move(theta, g, p, rows, decays, rate, scale, eps, scratch, cautious):
    """Compute θ ← (1 − rate)·θ − scale·Π(p) on a run of columns and say if Π acted, which cuts the rate."""
    kind = theta.dtype.type
    found = rows > 0 and project(theta, g, p, rows, eps, scratch)
    kept = kind(1)
    if decays:
        kept -= kind(WD_RATIO) * rate if found else rate
    for i in range(len(theta)):
        theta[i] = settled(theta[i], kept * theta[i], p[i], cautious) - scale * p[i]
    return found


@compiled
def sgdp(
    theta, g, alpha, rates, eta, rest1, root2, ends, decays, rows, found, scratch, cautious,
    m, eps, beta1, nesterov,
):  # fmt: skip
    """Update by `Sgdp`; rows (runs,) are output channels, 0 without a projection; found (L,) counts."""
    kind = theta.dtype.type
    beta1, eps = kind(beta1), kind(eps)
    for lane in range(len(theta)):
        scale, rate = kind(eta) * alpha[lane, 0], rates[lane, 0]
        for k in range(len(rows)):
            run = slice(ends[k], ends[k + 1])
            x, d, mean = theta[lane, run], g[lane, run], m[lane, run]
            for i in range(len(x)):
                mean[i] = beta1 * mean[i] + d[i]
            p = mean
            if nesterov:
                p = scratch.step[: len(x)]
                for i in range(len(x)):
                    p[i] = d[i] + beta1 * mean[i]
            found[lane] += move(x, d, p, rows[k], decays[k], rate, scale, eps, scratch, cautious)


@compiled
def adamp(
    theta, g, alpha, rates, eta, rest1, root2, ends, decays, rows, found, scratch, cautious,
    m, v, rest_of_beta1, beta2, rest_of_beta2, eps, nesterov,
):  # fmt: skip
    """Update by `Adamp`, with rows and found as in `sgdp`."""
    kind = theta.dtype.type
    rest_of_beta1, beta2, rest_of_beta2 = kind(rest_of_beta1), kind(beta2), kind(rest_of_beta2)
    eps, later = kind(eps), kind(eps * root2)
    for lane in range(len(theta)):
        scale, rate = kind(eta * root2 / rest1) * alpha[lane, 0], rates[lane, 0]
        for k in range(len(rows)):
            run = slice(ends[k], ends[k + 1])
            x, d, mean, square = theta[lane, run], g[lane, run], m[lane, run], v[lane, run]
            p = scratch.step[: len(x)]
            for i in range(len(x)):
                first = mean[i] + rest_of_beta1 * (d[i] - mean[i])
                second = beta2 * square[i] + rest_of_beta2 * d[i] * d[i]
                mean[i], square[i] = first, second
                if nesterov:
                    first += rest_of_beta1 * (d[i] - first)
                p[i] = first / (math.sqrt(second) + later)
            found[lane] += move(x, d, p, rows[k], decays[k], rate, scale, eps, scratch, cautious)


Array = np.ndarray[Any, Any]


def numba_loop(
    family: StepFamily, decay: Decay, projection: Projection | None, theta: Tensor
) -> CompiledLoop | None:
    """Return a compiled replacement of `Update.move` for the arena θ (L, P), which leaves g unchanged.

    None if the family has no loop.
    """
    call = _call(family)
    if call is None:
        return None
    loop, own = call
    tensors = () if projection is None else projection.tensors
    ends, decays = runs(decay.parts, theta.shape[1], [tensor.columns for tensor in tensors])
    shared: list[Any]
    if projection is None:
        shared = [decay.rule is DecayRule.COUPLED]
    else:
        channels = {tensor.start: tensor.shape[0] for tensor in tensors}
        rows = np.array([channels.get(start, 0) for start in ends[:-1]])
        shared = [rows, projection.found.numpy(), _scratch(np.diff(ends), rows, theta.numpy().dtype)]
    shared.append(True if decay.cautious else None)  # None leaves the code of plain decay as it is
    runs_of, arguments = (np.array(ends), np.array(decays)), [*shared, *own]

    def move(theta: Tensor, g: Tensor, alpha: Tensor, rate: Tensor, now: Now) -> None:
        arrays = (x.numpy() for x in (theta, g, alpha, rate))
        loop(*arrays, now.eta, now.rest1, now.root2, *runs_of, *arguments)
        if projection is not None:
            projection.seen += len(tensors)

    return move


def _call(family: StepFamily) -> tuple[Any, list[Any]] | None:
    """Return a family's loop, and its moments and hyperparameters in the loop's order; None without one."""
    loop: Any
    match family:
        case Sgd(beta1, nesterov, m) | TorchSgd(beta1, nesterov, m):
            loop, own = sgd, [m, float(beta1), isinstance(family, Sgd), nesterov]
        case Adam(beta1, beta2, eps, m, v):
            loop, own = adam, [m, v, None, 1.0 - beta1, float(beta2), 1.0 - beta2, float(eps)]
        case Amsgrad(beta1, beta2, eps, m, v, u):
            loop, own = adam, [m, v, u, 1.0 - beta1, float(beta2), 1.0 - beta2, float(eps)]
        case Adagrad(eps, v):
            loop, own = adagrad, [v, float(eps)]
        case Rmsprop(beta1, beta2, eps, v, m):
            loop, own = rmsprop, [v, m, float(beta1), float(beta2), 1.0 - beta2, float(eps)]
        case Lion(beta1, beta2, m):
            loop, own = lion, [m, 1.0 - beta1, 1.0 - beta2]
        case Sgdp(beta1, nesterov, m, projection):
            loop, own = sgdp, [m, projection.eps, float(beta1), nesterov]
        case Adamp(beta1, beta2, eps, nesterov, m, v):
            loop, own = adamp, [m, v, 1.0 - beta1, float(beta2), 1.0 - beta2, float(eps), nesterov]
        case _:
            return None
    return loop, [x.numpy() if isinstance(x, Tensor) else x for x in own]


def _scratch(widths: Array, rows: Array, dtype: np.dtype[Any]) -> Scratch:
    """Allocate for the widest run and the longest of its rows."""
    longest = max((width // count for width, count in zip(widths, rows, strict=True) if count), default=0)
    return Scratch(
        np.empty(max(widths), dtype),
        np.empty(max(BLOCK, longest), dtype),
        np.ones(longest, dtype),
        np.empty((4, max(rows)), dtype),
    )
