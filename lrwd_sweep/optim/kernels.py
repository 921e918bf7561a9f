"""Triton kernels of the updates whose every number needs no other: one pass over the arena.

A program has BLOCK columns of one lane. It reads θ, g and the moments once and writes θ and the moments
once; a lane that has died it leaves as it is. What each does is written down in the family's own file.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,import-not-found,unused-ignore]

# All arguments begin with pointers to θ (L, P), g (L, P), α (L, 1), λ (L, 1), died_at (L,), t (1,),
# table (steps, 4) and decays (P,), which are those of `FusedUpdate`, and P.


@triton.jit
def _place(died_at_ptr, P, BLOCK: tl.constexpr):
    """This program's lane, its columns, and where it acts."""
    blocks = (P + BLOCK - 1) // BLOCK
    lane = tl.program_id(0) // blocks
    columns = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    end = tl.where(tl.load(died_at_ptr + lane) < 0, P, 0)  # of a dead lane nothing
    return lane, columns, columns < end


@triton.jit
def rate_of(alpha, lam, eta, root_n, gain, RULE: tl.constexpr, NORMALIZED: tl.constexpr):
    """As `Decay.rate`."""
    if NORMALIZED:
        lam = lam / root_n
    if RULE == "independent":
        rate = eta * lam
    elif RULE == "lr-scaled":
        rate = eta * gain * alpha * lam
    elif RULE == "corrected":
        rate = eta * eta * alpha * lam
    else:  # coupled, fixed
        rate = lam
    return rate


@triton.jit
def _begin(
    theta_ptr, g_ptr, alpha_ptr, lam_ptr, died_at_ptr, t_ptr, table_ptr, decays_ptr, P,
    RULE: tl.constexpr, NORMALIZED: tl.constexpr, ALL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Where to act; θ and g with the decay in one of them; α and the table's row."""
    lane, columns, acts = _place(died_at_ptr, P, BLOCK)
    row = table_ptr + 4 * tl.load(t_ptr)
    eta, root_n, rest1, root2 = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    alpha, lam = tl.load(alpha_ptr + lane), tl.load(lam_ptr + lane)
    rate = rate_of(alpha, lam, eta, root_n, 1.0, RULE, NORMALIZED)
    if not ALL:
        rate = tl.where(tl.load(decays_ptr + columns, acts, other=0) != 0, rate, 0.0)
    at = lane.to(tl.int64) * P + columns  # L·P may be more than 32 bits hold
    theta, g = tl.load(theta_ptr + at, acts), tl.load(g_ptr + at, acts)
    if RULE == "coupled":
        g += rate * theta
    else:
        theta *= 1 - rate
    return at, acts, theta, g, alpha, eta, rest1, root2


@triton.jit
def sgd(
    theta_ptr, g_ptr, alpha_ptr, lam_ptr, died_at_ptr, t_ptr, table_ptr, decays_ptr, P,
    m_ptr, beta1,
    RULE: tl.constexpr, NORMALIZED: tl.constexpr, ALL: tl.constexpr, BLOCK: tl.constexpr,
    INSIDE: tl.constexpr, NESTEROV: tl.constexpr,
):  # fmt: skip
    """`Sgd` with η_t α inside the buffer, else `TorchSgd`."""
    at, acts, theta, g, alpha, eta, _, _ = _begin(
        theta_ptr, g_ptr, alpha_ptr, lam_ptr, died_at_ptr, t_ptr, table_ptr, decays_ptr, P,
        RULE, NORMALIZED, ALL, BLOCK,
    )  # fmt: skip
    if INSIDE:
        g *= eta * alpha
    m = beta1 * tl.load(m_ptr + at, acts) + g
    tl.store(m_ptr + at, m, acts)
    step = m
    if NESTEROV:
        step = g + beta1 * m
    if not INSIDE:
        step *= eta * alpha
    tl.store(theta_ptr + at, theta - step, acts)


@triton.jit
def adam(
    theta_ptr, g_ptr, alpha_ptr, lam_ptr, died_at_ptr, t_ptr, table_ptr, decays_ptr, P,
    m_ptr, v_ptr, u_ptr, rest_of_beta1, beta2, rest_of_beta2, eps,
    RULE: tl.constexpr, NORMALIZED: tl.constexpr, ALL: tl.constexpr, BLOCK: tl.constexpr,
    AMSGRAD: tl.constexpr,
):  # fmt: skip
    """`Adam`, or `Amsgrad`, which alone has a u."""
    at, acts, theta, g, alpha, eta, rest1, root2 = _begin(
        theta_ptr, g_ptr, alpha_ptr, lam_ptr, died_at_ptr, t_ptr, table_ptr, decays_ptr, P,
        RULE, NORMALIZED, ALL, BLOCK,
    )  # fmt: skip
    m = tl.load(m_ptr + at, acts)
    m += rest_of_beta1 * (g - m)
    tl.store(m_ptr + at, m, acts)
    v = beta2 * tl.load(v_ptr + at, acts) + rest_of_beta2 * g * g
    tl.store(v_ptr + at, v, acts)
    if AMSGRAD:
        v = tl.maximum(tl.load(u_ptr + at, acts), v, propagate_nan=tl.PropagateNan.ALL)
        tl.store(u_ptr + at, v, acts)
    direction = tl.div_rn(m, tl.sqrt_rn(v) + eps * root2)
    tl.store(theta_ptr + at, theta - alpha * (eta * root2 / rest1) * direction, acts)


@triton.jit
def adagrad(
    theta_ptr, g_ptr, alpha_ptr, lam_ptr, died_at_ptr, t_ptr, table_ptr, decays_ptr, P,
    v_ptr, eps,
    RULE: tl.constexpr, NORMALIZED: tl.constexpr, ALL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`Adagrad`."""
    at, acts, theta, g, alpha, eta, _, _ = _begin(
        theta_ptr, g_ptr, alpha_ptr, lam_ptr, died_at_ptr, t_ptr, table_ptr, decays_ptr, P,
        RULE, NORMALIZED, ALL, BLOCK,
    )  # fmt: skip
    v = tl.load(v_ptr + at, acts) + g * g
    tl.store(v_ptr + at, v, acts)
    tl.store(theta_ptr + at, theta - eta * alpha * tl.div_rn(g, tl.sqrt_rn(v) + eps), acts)


@triton.jit
def rmsprop(
    theta_ptr, g_ptr, alpha_ptr, lam_ptr, died_at_ptr, t_ptr, table_ptr, decays_ptr, P,
    v_ptr, m_ptr, beta1, beta2, rest_of_beta2, eps,
    RULE: tl.constexpr, NORMALIZED: tl.constexpr, ALL: tl.constexpr, BLOCK: tl.constexpr,
    MOMENTUM: tl.constexpr,
):  # fmt: skip
    """`Rmsprop`, which has an m where it has momentum."""
    at, acts, theta, g, alpha, eta, _, _ = _begin(
        theta_ptr, g_ptr, alpha_ptr, lam_ptr, died_at_ptr, t_ptr, table_ptr, decays_ptr, P,
        RULE, NORMALIZED, ALL, BLOCK,
    )  # fmt: skip
    v = beta2 * tl.load(v_ptr + at, acts) + rest_of_beta2 * g * g
    tl.store(v_ptr + at, v, acts)
    direction = tl.div_rn(g, tl.sqrt_rn(v) + eps)
    if MOMENTUM:
        direction = beta1 * tl.load(m_ptr + at, acts) + direction
        tl.store(m_ptr + at, direction, acts)
    tl.store(theta_ptr + at, theta - eta * alpha * direction, acts)
