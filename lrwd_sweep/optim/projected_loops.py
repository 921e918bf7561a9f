"""Compiled loops of SGDP's and AdamP's updates on a CPU, lane after lane and tensor after tensor.

A tensor is in the core's cache while sums over its rows are taken, and still when the step that needs them
is. What each does is written down in the family's own file and in `Projection`.
"""
# mypy: allow-untyped-defs

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lrwd_sweep.optim.jit import compiled

# The updates' arguments begin with θ (L, P), g (L, P), α (L, 1), what decay leaves of θ, and what where a
# step was projected, each (L, 1), and `Runs`; then come how many of a lane's tensors were projected, (L,),
# counted on, δ, ε, `Scratch`, η_t, 1 − β₁ᵗ and √(1 − β₂ᵗ). Numbers are brought into the arena's type, which
# others would widen.

BLOCK = 4096  # numbers that are multiplied before they are summed by rows: they stay in a core's first cache


class Runs(NamedTuple):
    """The arena's columns: tensors that a projection watches, and what lies between them."""

    ends: np.ndarray  # (runs + 1,), where they begin, and where the last one ends
    decays: np.ndarray  # (runs,), whether they do
    rows: np.ndarray  # (runs,), output channels of a tensor that is watched, else 0


class Scratch(NamedTuple):
    """Room for one tensor of a lane."""

    step: np.ndarray  # (widest,)
    products: np.ndarray  # (BLOCK or the longest row,)
    ones: np.ndarray  # (longest row,)
    sums: np.ndarray  # (4, most rows)


@compiled
def row_sums(a, b, rows, scratch, sums):
    """sums (rows,) of a·b, both (rows · K,)."""
    sums[:] = 0  # BLAS adds to 0 times what is there, which may be NaN
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
    """Whether |cos(g, θ)| is below the limit, by θ·g, θ·θ and g·g; NaN is not."""
    cos = inner / (max(math.sqrt(square), eps) * max(math.sqrt(square_g), eps))
    return abs(cos) < limit


@compiled
def project(theta, g, p, rows, delta, eps, scratch):
    """p ← Π(p) of one tensor, in place, and whether it was projected; θ, g and p are (rows · K,)."""
    kind = theta.dtype.type
    length = len(theta) // rows
    inner, square, square_g, radial = (
        scratch.sums[0, :rows], scratch.sums[1, :rows], scratch.sums[2, :rows], scratch.sums[3, :rows],
    )  # fmt: skip
    row_sums(theta, g, rows, scratch, inner)
    row_sums(theta, theta, rows, scratch, square)
    row_sums(g, g, rows, scratch, square_g)
    by_row, limit = True, kind(delta / math.sqrt(length))
    for r in range(rows):
        by_row = by_row and is_across(inner[r], square[r], square_g[r], limit, eps)
    whole = kind(delta / math.sqrt(len(theta)))
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
def move(theta, g, p, rows, share, kept, scale, delta, eps, scratch):
    """θ ← share·θ − scale·Π(p) of one run of columns; whether p was projected, and kept its share."""
    found = rows > 0 and project(theta, g, p, rows, delta, eps, scratch)
    if found:
        share = kept
    for i in range(len(theta)):
        theta[i] = share * theta[i] - scale * p[i]
    return found


@compiled
def sgdp(
    theta, g, alpha, shares, kept, runs, found, delta, eps, scratch, eta, rest1, root2, m, beta1, nesterov
):  # fmt: skip
    """`Sgdp`."""
    kind = theta.dtype.type
    beta1, eps = kind(beta1), kind(eps)
    for lane in range(len(theta)):
        for k in range(len(runs.rows)):
            run = slice(runs.ends[k], runs.ends[k + 1])
            x, d, mean = theta[lane, run], g[lane, run], m[lane, run]
            for i in range(len(x)):
                mean[i] = beta1 * mean[i] + d[i]
            p = mean
            if nesterov:
                p = scratch.step[: len(x)]
                for i in range(len(x)):
                    p[i] = d[i] + beta1 * mean[i]
            share, less = (shares[lane, 0], kept[lane, 0]) if runs.decays[k] else (kind(1), kind(1))
            scale = kind(eta) * alpha[lane, 0]
            found[lane] += move(x, d, p, runs.rows[k], share, less, scale, delta, eps, scratch)


@compiled
def adamp(
    theta, g, alpha, shares, kept, runs, found, delta, eps, scratch, eta, rest1, root2,
    m, v, rest_of_beta1, beta2, rest_of_beta2, nesterov,
):  # fmt: skip
    """`Adamp`."""
    kind = theta.dtype.type
    rest_of_beta1, beta2, rest_of_beta2 = kind(rest_of_beta1), kind(beta2), kind(rest_of_beta2)
    eps, later = kind(eps), kind(eps * root2)
    for lane in range(len(theta)):
        for k in range(len(runs.rows)):
            run = slice(runs.ends[k], runs.ends[k + 1])
            x, d, mean, square = theta[lane, run], g[lane, run], m[lane, run], v[lane, run]
            p = scratch.step[: len(x)]
            for i in range(len(x)):
                first = mean[i] + rest_of_beta1 * (d[i] - mean[i])
                second = beta2 * square[i] + rest_of_beta2 * d[i] * d[i]
                mean[i], square[i] = first, second
                if nesterov:
                    first += rest_of_beta1 * (d[i] - first)
                p[i] = first / (math.sqrt(second) + later)
            share, less = (shares[lane, 0], kept[lane, 0]) if runs.decays[k] else (kind(1), kind(1))
            scale = kind(eta * root2 / rest1) * alpha[lane, 0]
            found[lane] += move(x, d, p, runs.rows[k], share, less, scale, delta, eps, scratch)
