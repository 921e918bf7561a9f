"""Compiled loops of the updates whose every number needs no other: one pass over the arena, on a CPU.

What each does is written down in the family's own file.
"""
# mypy: allow-untyped-defs

from __future__ import annotations

import math

from lrwd_sweep.optim.jit import compiled

# All arguments begin with θ (L, P), g (L, P), α (L, 1), the share of the decay (L, 1), whether it is coupled,
# where runs of columns that decay or do not begin and end, (runs + 1,), whether they do, (runs,), and η_t,
# 1 − β₁ᵗ and √(1 − β₂ᵗ). A moment that a family does not have is None. Numbers are brought into the arena's
# type, which others would widen.


@compiled
def decayed(theta, g, share, decays, coupled):
    """θ and g of one column with the decay in one of them; the share is λ′ if coupled, else what θ keeps."""
    if not decays:
        return theta, g
    if coupled:
        return theta, g + share * theta
    return theta * share, g


@compiled
def sgd(theta, g, alpha, shares, coupled, ends, decays, eta, rest1, root2, m, beta1, inside, nesterov):
    """`Sgd` with η_t α inside the buffer, else `TorchSgd`."""
    kind = theta.dtype.type
    beta1 = kind(beta1)
    for lane in range(len(theta)):
        scale, share = kind(eta) * alpha[lane, 0], shares[lane, 0]
        within, beyond = (scale, kind(1)) if inside else (kind(1), scale)
        for k in range(len(decays)):
            run, decaying = slice(ends[k], ends[k + 1]), decays[k]
            x, d, mean = theta[lane, run], g[lane, run], m[lane, run]
            for i in range(len(x)):
                start, slope = decayed(x[i], d[i], share, decaying, coupled)
                slope *= within
                mean[i] = beta1 * mean[i] + slope
                step = slope + beta1 * mean[i] if nesterov else mean[i]
                x[i] = start - beyond * step


@compiled
def adam(
    theta, g, alpha, shares, coupled, ends, decays, eta, rest1, root2,
    m, v, u, rest_of_beta1, beta2, rest_of_beta2, eps,
):  # fmt: skip
    """`Adam`, or `Amsgrad`, which alone has a u."""
    kind = theta.dtype.type
    rest_of_beta1, beta2, rest_of_beta2 = kind(rest_of_beta1), kind(beta2), kind(rest_of_beta2)
    eps = kind(eps * root2)
    for lane in range(len(theta)):
        scale, share = kind(eta * root2 / rest1) * alpha[lane, 0], shares[lane, 0]
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
                x[i] = start - scale * (first / (math.sqrt(second) + eps))


@compiled
def adagrad(theta, g, alpha, shares, coupled, ends, decays, eta, rest1, root2, v, eps):
    """`Adagrad`."""
    kind = theta.dtype.type
    eps = kind(eps)
    for lane in range(len(theta)):
        scale, share = kind(eta) * alpha[lane, 0], shares[lane, 0]
        for k in range(len(decays)):
            run, decaying = slice(ends[k], ends[k + 1]), decays[k]
            x, d, square = theta[lane, run], g[lane, run], v[lane, run]
            for i in range(len(x)):
                start, slope = decayed(x[i], d[i], share, decaying, coupled)
                square[i] += slope * slope
                x[i] = start - scale * (slope / (math.sqrt(square[i]) + eps))


@compiled
def rmsprop(
    theta, g, alpha, shares, coupled, ends, decays, eta, rest1, root2,
    v, m, beta1, beta2, rest_of_beta2, eps,
):  # fmt: skip
    """`Rmsprop`, which has an m where it has momentum."""
    kind = theta.dtype.type
    beta1, beta2, rest_of_beta2, eps = kind(beta1), kind(beta2), kind(rest_of_beta2), kind(eps)
    for lane in range(len(theta)):
        scale, share = kind(eta) * alpha[lane, 0], shares[lane, 0]
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
                x[i] = start - scale * step


LOOPS = {"sgd": sgd, "adam": adam, "adagrad": adagrad, "rmsprop": rmsprop}
