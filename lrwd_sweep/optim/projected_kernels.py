"""Triton kernels of SGDP's and AdamP's updates: three passes, as a projection needs sums over rows first.

A program has one row of one lane: that of an output channel of a watched tensor, or some columns that no
projection watches. `sgdp` or `adamp` makes moments and the step p, and sums over its row; `judge` decides by
the sums of a tensor; `move` takes the radial part from p, and updates θ. A lane that has died they leave as
it is. What they do is written down in the families' own files and in `Projection`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,import-not-found,unused-ignore]

from lrwd_sweep.optim.kernels import rate_of

# Pointers to θ, g, p and the moments, each (L, P), α and λ, each (L, 1), died_at (L,), t (1,) and
# table (steps, 4) are those of `FusedUpdate`; rows (R, 3), tensors (T, 3), sums (L, R, 4) and
# verdicts (L, R, 2) those of `FusedProjection`.


@triton.jit
def _row(died_at_ptr, rows_ptr, P, R):
    """This program's lane and row, where the lane lies, and which of its columns are meant."""
    lane = (tl.program_id(0) // R).to(tl.int64)  # L·P may be more than 32 bits hold
    row = tl.program_id(0) % R
    begin, end = tl.load(rows_ptr + 3 * row), tl.load(rows_ptr + 3 * row + 1)
    end = tl.where(tl.load(died_at_ptr + lane) < 0, end, begin)  # of a dead lane nothing
    return lane, row, lane * P, begin, end


@triton.jit
def _block(start, first, end, BLOCK: tl.constexpr):
    """Where the next columns of a row lie, and which of them are in it."""
    columns = first + tl.arange(0, BLOCK)
    return start + columns, columns < end


@triton.jit
def _add(inner, square, square_g, radial, theta, g, p):
    """The sums with these columns."""
    return inner + theta * g, square + theta * theta, square_g + g * g, radial + theta * p


@triton.jit
def _keep_sums(sums_ptr, inner, square, square_g, radial):
    """θ·g, θ·θ, g·g and θ·p of one row."""
    tl.store(sums_ptr, tl.sum(inner, 0))
    tl.store(sums_ptr + 1, tl.sum(square, 0))
    tl.store(sums_ptr + 2, tl.sum(square_g, 0))
    tl.store(sums_ptr + 3, tl.sum(radial, 0))


@triton.jit
def sgdp(
    theta_ptr, g_ptr, died_at_ptr, t_ptr, table_ptr, rows_ptr, sums_ptr, P, R,
    m_ptr, beta1,
    BLOCK: tl.constexpr, NESTEROV: tl.constexpr,
):  # fmt: skip
    """m of `Sgdp`, which is p; with Nesterov p takes the place of g."""
    lane, row, start, begin, end = _row(died_at_ptr, rows_ptr, P, R)
    inner = tl.zeros((BLOCK,), tl.float32)
    square, square_g, radial = inner, inner, inner
    for first in range(begin, end, BLOCK):
        at, acts = _block(start, first, end, BLOCK)
        theta, g = tl.load(theta_ptr + at, acts, other=0), tl.load(g_ptr + at, acts, other=0)
        m = beta1 * tl.load(m_ptr + at, acts, other=0) + g
        tl.store(m_ptr + at, m, acts)
        p = m
        if NESTEROV:
            p = g + beta1 * m
            tl.store(g_ptr + at, p, acts)
        inner, square, square_g, radial = _add(inner, square, square_g, radial, theta, g, p)
    _keep_sums(sums_ptr + 4 * (lane * R + row), inner, square, square_g, radial)


@triton.jit
def adamp(
    theta_ptr, g_ptr, died_at_ptr, t_ptr, table_ptr, rows_ptr, sums_ptr, P, R,
    m_ptr, v_ptr, rest_of_beta1, beta2, rest_of_beta2, eps,
    BLOCK: tl.constexpr, NESTEROV: tl.constexpr,
):  # fmt: skip
    """m and v of `Adamp`; p takes the place of g."""
    lane, row, start, begin, end = _row(died_at_ptr, rows_ptr, P, R)
    later = eps * tl.load(table_ptr + 4 * tl.load(t_ptr) + 3)
    inner = tl.zeros((BLOCK,), tl.float32)
    square, square_g, radial = inner, inner, inner
    for first in range(begin, end, BLOCK):
        at, acts = _block(start, first, end, BLOCK)
        theta, g = tl.load(theta_ptr + at, acts, other=0), tl.load(g_ptr + at, acts, other=0)
        m = tl.load(m_ptr + at, acts, other=0)
        m += rest_of_beta1 * (g - m)
        tl.store(m_ptr + at, m, acts)
        v = beta2 * tl.load(v_ptr + at, acts, other=0) + rest_of_beta2 * g * g
        tl.store(v_ptr + at, v, acts)
        if NESTEROV:
            m += rest_of_beta1 * (g - m)
        p = tl.where(acts, tl.div_rn(m, tl.sqrt_rn(v) + later), 0)
        tl.store(g_ptr + at, p, acts)
        inner, square, square_g, radial = _add(inner, square, square_g, radial, theta, g, p)
    _keep_sums(sums_ptr + 4 * (lane * R + row), inner, square, square_g, radial)


@triton.jit
def _is_across(inner, square, square_g, delta, length, eps):
    """Whether |cos(g, θ)| of a row is small enough, by θ·g, θ·θ and g·g; NaN is not."""
    norm, norm_g = tl.maximum(tl.sqrt_rn(square), eps), tl.maximum(tl.sqrt_rn(square_g), eps)
    return tl.abs(tl.div_rn(inner, norm * norm_g)) < delta / tl.sqrt_rn(length.to(tl.float32))


@triton.jit
def judge(tensors_ptr, sums_ptr, verdicts_ptr, found_ptr, R, T, delta, eps, BLOCK: tl.constexpr):
    """Whether a tensor's step is projected, counted in found (L,), and what share of θ every row of p loses.

    A program has one tensor of one lane.
    """
    lane = (tl.program_id(0) // T).to(tl.int64)
    tensor = tensors_ptr + 3 * (tl.program_id(0) % T)
    start, count, length = lane * R + tl.load(tensor), tl.load(tensor + 1), tl.load(tensor + 2)
    inner = tl.zeros((BLOCK,), tl.float32)
    square, square_g, radial, not_across = inner, inner, inner, inner
    for first in range(0, count, BLOCK):
        rows = first + tl.arange(0, BLOCK)
        acts, at = rows < count, sums_ptr + 4 * (start + rows)
        one, two, three = (
            tl.load(at, acts, other=0), tl.load(at + 1, acts, other=0), tl.load(at + 2, acts, other=0)
        )  # fmt: skip
        not_across += tl.where(_is_across(one, two, three, delta, length, eps), 0, tl.where(acts, 1, 0))
        inner, square, square_g, radial = (
            inner + one, square + two, square_g + three, radial + tl.load(at + 3, acts, other=0)
        )  # fmt: skip
    by_row = tl.sum(not_across, 0) == 0
    whole, whole_radial = tl.sum(square, 0), tl.sum(radial, 0)
    found = by_row | _is_across(
        tl.sum(inner, 0), whole, tl.sum(square_g, 0), delta, count * length, eps
    )  # fmt: skip
    tl.atomic_add(found_ptr + lane, found.to(tl.float64))
    for first in range(0, count, BLOCK):
        rows = first + tl.arange(0, BLOCK)
        acts, at = rows < count, sums_ptr + 4 * (start + rows)
        norm = tl.sqrt_rn(tl.where(by_row, tl.load(at + 1, acts, other=0), whole)) + eps
        share = tl.where(by_row, tl.load(at + 3, acts, other=0), whole_radial) / (norm * norm)
        tl.store(verdicts_ptr + 2 * (start + rows), tl.where(found, share, 0), acts)
        tl.store(verdicts_ptr + 2 * (start + rows) + 1, tl.where(acts, found.to(tl.float32), 0), acts)


@triton.jit
def move(
    theta_ptr, p_ptr, alpha_ptr, lam_ptr, died_at_ptr, t_ptr, table_ptr, rows_ptr, verdicts_ptr, P, R,
    gain, ratio,
    RULE: tl.constexpr, NORMALIZED: tl.constexpr, CORRECTED: tl.constexpr, KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """θ ← (1 − rate) θ − scale · Π(p), with the rate times `ratio` where p was projected.

    Adam's bias corrections are in the scale if CORRECTED; with KEEP p becomes Π(p).
    """
    lane, row, start, begin, end = _row(died_at_ptr, rows_ptr, P, R)
    now = table_ptr + 4 * tl.load(t_ptr)
    eta, root_n, rest1, root2 = tl.load(now), tl.load(now + 1), tl.load(now + 2), tl.load(now + 3)
    alpha, lam = tl.load(alpha_ptr + lane), tl.load(lam_ptr + lane)
    verdict = verdicts_ptr + 2 * (lane * R + row)
    along, found = tl.load(verdict), tl.load(verdict + 1)
    rate = rate_of(alpha, lam, eta, root_n, gain, RULE, NORMALIZED)
    rate = tl.where(found != 0, ratio * rate, rate)
    rate = tl.where(tl.load(rows_ptr + 3 * row + 2) != 0, rate, 0.0)
    scale = eta * alpha
    if CORRECTED:
        scale = alpha * (eta * root2 / rest1)
    for first in range(begin, end, BLOCK):
        at, acts = _block(start, first, end, BLOCK)
        theta, p = tl.load(theta_ptr + at, acts), tl.load(p_ptr + at, acts)
        p -= along * theta
        if KEEP:
            tl.store(p_ptr + at, p, acts)
        tl.store(theta_ptr + at, (1 - rate) * theta - scale * p, acts)
