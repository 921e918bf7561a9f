"""Multilayer perceptrons on a CPU, lane after lane: compiled loops that keep a lane in the core's cache.

What lies between two products is a pass or two over numbers that are there already, and nothing is called
from Python for a lane. The products are scipy's BLAS. Activations are (H, B), so that rows are contiguous.
"""
# mypy: allow-untyped-defs

from __future__ import annotations

import math

import numpy as np

from lrwd_sweep.jit import compiled
from lrwd_sweep.nets.batch_norm import EPS, MOMENTUM  # compiled in, and kept until this file changes


@compiled
def total(row):
    """The sum of a row, as eight sums side by side: in this order on every machine."""
    a = b = c = d = e = f = g = h = row.dtype.type(0)
    whole = len(row) // 8 * 8
    for i in range(0, whole, 8):
        a += row[i]
        b += row[i + 1]
        c += row[i + 2]
        d += row[i + 3]
        e += row[i + 4]
        f += row[i + 5]
        g += row[i + 6]
        h += row[i + 7]
    for i in range(whole, len(row)):
        a += row[i]
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@compiled
def dot(one, other):
    """The scalar product of two rows, summed likewise."""
    a = b = c = d = e = f = g = h = one.dtype.type(0)
    whole = len(one) // 8 * 8
    for i in range(0, whole, 8):
        a += one[i] * other[i]
        b += one[i + 1] * other[i + 1]
        c += one[i + 2] * other[i + 2]
        d += one[i + 3] * other[i + 3]
        e += one[i + 4] * other[i + 4]
        f += one[i + 5] * other[i + 5]
        g += one[i + 6] * other[i + 6]
        h += one[i + 7] * other[i + 7]
    for i in range(whole, len(one)):
        a += one[i] * other[i]
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@compiled
def normalise(z, rstd, running_mean, running_var):
    """z (H, B) ← (z − mean)/√(var + ε) in place; 1/√(var + ε) is kept, the running statistics move along."""
    kind = z.dtype.type
    rows, batch = z.shape
    for j in range(rows):
        row = z[j]
        mean = total(row) / kind(batch)
        for b in range(batch):
            row[b] -= mean
        squares = dot(row, row)
        scale = kind(1) / math.sqrt(squares / kind(batch) + kind(EPS))
        for b in range(batch):
            row[b] *= scale
        rstd[j] = scale
        running_mean[j] += kind(MOMENTUM) * (mean - running_mean[j])
        running_var[j] += kind(MOMENTUM) * (squares / kind(batch - 1) - running_var[j])


@compiled
def denormalise(n, rstd, dn):
    """dn (H, B) ← dz = (dn − mean(dn) − n mean(dn·n)) rstd, in place; n as `normalise` left it."""
    kind = n.dtype.type
    rows, batch = n.shape
    for j in range(rows):
        row, d, scale = n[j], dn[j], rstd[j]
        mean = total(d) / kind(batch)
        slope = dot(d, row) / kind(batch)
        for b in range(batch):
            d[b] = (d[b] - mean - row[b] * slope) * scale


@compiled
def apply_running(z, running_mean, running_rstd):
    """z (H, B) ← (z − running mean) · running 1/√(var + ε), in place."""
    for j in range(len(z)):
        row, mean, rstd = z[j], running_mean[j], running_rstd[j]
        for b in range(len(row)):
            row[b] = (row[b] - mean) * rstd


@compiled
def rectify(n, h):
    """h ← max(n, 0); NaN stays NaN."""
    zero = n.dtype.type(0)
    for j in range(len(n)):
        source, target = n[j], h[j]
        for b in range(len(source)):
            target[b] = zero if source[b] < zero else source[b]


@compiled
def rectify_backward(n, dh):
    """dn = dh where n > 0, else 0; in the place of dh."""
    zero = n.dtype.type(0)
    for j in range(len(n)):
        row, d = n[j], dh[j]
        for b in range(len(row)):
            d[b] = d[b] if row[b] > zero else zero


@compiled
def output(z, scale, bias, logits):
    """logits (C, B) = scale z + bias."""
    for c in range(len(z)):
        source, target, shift = z[c], logits[c], bias[c]
        for b in range(len(source)):
            target[b] = scale * source[b] + shift


@compiled
def cross_entropy(logits, y, d):
    """The mean over the batch of logits (C, B) and classes (B,); d is its gradient, (softmax − one-hot)/B."""
    kind = logits.dtype.type
    classes, batch = logits.shape
    loss, one_of = kind(0), kind(1) / kind(batch)
    for b in range(batch):
        top = logits[0, b]
        for c in range(1, classes):
            if not logits[c, b] <= top:  # or it is NaN
                top = logits[c, b]
        total = kind(0)
        for c in range(classes):
            d[c, b] = math.exp(logits[c, b] - top)
            total += d[c, b]
        loss += top + math.log(total) - logits[y[b], b]
        for c in range(classes):
            d[c, b] *= one_of / total
        d[y[b], b] -= one_of
    return loss * one_of


@compiled
def bias_backward(d, scale, db):
    """db (C,) = the sums of d (C, B); d ← scale d."""
    for c in range(len(d)):
        row = d[c]
        db[c] = total(row)
        for b in range(len(row)):
            row[b] *= scale


@compiled
def matrix(flat, start, rows, columns):
    """The matrix (rows, columns) that begins at `start`."""
    return flat[start : start + rows * columns].reshape(rows, columns)


@compiled
def gradient(
    theta,  # (L, P), the matrices (out, in) one after another, then the bias
    grad,  # (L, P), written
    widths,  # of the input and of every layer
    normed,  # how many layers are normalised
    scale,  # of what comes out of the last one
    x,  # (B, in)
    xt,  # (in, B)
    y,  # (B,)
    n,  # (units · B,), of all layers: as the forward pass left it, for the backward pass
    h,  # likewise, rectified
    d,  # (widest · B,), the gradient by what a layer computes
    e,  # (widest · B,), that of the layer below
    rstd,  # (units,)
    running_mean,  # (L, units)
    running_var,  # (L, units)
    losses,  # (L,), written
    logits,  # (L, C, B), written
):
    """Every lane's loss on a batch, and its gradient."""
    batch, last = len(x), len(widths) - 2
    for lane in range(len(theta)):
        start = row = 0
        below = xt
        for k in range(last + 1):
            fan_in, units = widths[k], widths[k + 1]
            z = matrix(n, row * batch, units, batch)
            np.dot(matrix(theta[lane], start, units, fan_in), below, z)
            if k < normed:
                here = slice(row, row + units)
                normalise(z, rstd[here], running_mean[lane, here], running_var[lane, here])
            if k < last:
                below = matrix(h, row * batch, units, batch)
                rectify(z, below)
                start += units * fan_in
                row += units
        classes = widths[last + 1]
        bias = start + classes * widths[last]
        output(z, scale, theta[lane, bias : bias + classes], logits[lane])
        dz = matrix(d, 0, classes, batch)
        losses[lane] = cross_entropy(logits[lane], y, dz)
        bias_backward(dz, scale, grad[lane, bias : bias + classes])
        for k in range(last, -1, -1):
            fan_in, units = widths[k], widths[k + 1]
            z = matrix(n, row * batch, units, batch)
            if k < last:
                rectify_backward(z, dz)
            if k < normed:
                denormalise(z, rstd[row : row + units], dz)
            dw = matrix(grad[lane], start, units, fan_in)
            if k == 0:
                np.dot(dz, x, dw)
                break
            row -= fan_in
            np.dot(dz, matrix(h, row * batch, fan_in, batch).T, dw)
            dh = matrix(e, 0, fan_in, batch)
            np.dot(matrix(theta[lane], start, units, fan_in).T, dz, dh)
            dz, d, e = dh, e, d
            start -= fan_in * widths[k - 1]


@compiled
def predict(theta, widths, normed, scale, xt, z, h, running_mean, running_rstd, logits):
    """The logits (L, C, B) of inputs xt (in, B) by running statistics; z and h (widest · B,) are scratch."""
    batch, last = xt.shape[1], len(widths) - 2
    for lane in range(len(theta)):
        start = row = 0
        below = xt
        for k in range(last + 1):
            fan_in, units = widths[k], widths[k + 1]
            above = matrix(z, 0, units, batch)
            np.dot(matrix(theta[lane], start, units, fan_in), below, above)
            start += units * fan_in
            if k < normed:
                here = slice(row, row + units)
                apply_running(above, running_mean[lane, here], running_rstd[lane, here])
            if k < last:
                rectify(above, above)
                below, z, h = above, h, z
                row += units
        output(above, scale, theta[lane, start : start + len(logits[lane])], logits[lane])
