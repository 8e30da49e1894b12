"""What the GPU kernels of SCSA have in common; ``triton.py`` launches them.

Names in all of them: B, C, H, W is the shape of x, which has n windows of the pool in nh rows by nw columns; ``D`` is
C / 4, ``d`` the channels of a head. ``LAST`` says channels-last: C is then given as C4 = C / 4, so that the compiler
sees that four channels can be loaded at once. A *plane* is a channel of an image.

A window is cut into cells, ``parts`` along a side, of at most ``cell`` <= 8 rows or columns, which a block of 8 by 8
holds. Cells do not cross windows; those of the rows and columns past the last whole window are numbered on after the
whole ones.

Strips (gates, means, and what belongs to them) are (B, C, H), and after all of these (B, C, W); channels-last (B, H, C)
and (B, W, C). The pooled map is (B, n, C), so that a product over positions reads neighbouring channels.

What several programs contribute to a sum is written beside each other and added by the next kernel in a fixed order, so
that results are the same from run to run.
"""

import triton
import triton.language as tl

from ..arithmetic import EPS
from ..triton_math import divide, exp, rsqrt, sigmoid, sigmoid_slope

EPSILON = tl.constexpr(EPS)
NEVER = tl.constexpr(-1e30)  # a score that counts for nothing; infinities would give NaN as differences


@triton.jit
def start(q, window, parts, cell):
    return q // parts * window + q % parts * cell


@triton.jit
def end(q, window, parts, cell, length):
    return tl.minimum(tl.minimum(start(q, window, parts, cell) + cell, (q // parts + 1) * window), length)


@triton.jit
def statistics(parts, number, stride, ACC: tl.constexpr):
    """Mean, variance and reciprocal standard deviation from ``number`` parts: counts, means, squared deviations' sums.

    All relative to the mean of the first part, so that nothing large cancels. Of one part, count 1 and the variance
    give the same bits again.
    """
    pilot = tl.load(parts + stride)
    lane = tl.arange(0, 128)
    count = tl.zeros([128], ACC)
    first = tl.zeros([128], ACC)
    second = tl.zeros([128], ACC)
    for i in range(0, number, 128):
        here = i + lane < number
        n = tl.load(parts + i + lane, mask=here, other=0)
        off = tl.load(parts + stride + i + lane, mask=here, other=0) - pilot
        count += n
        first += n * off
        second += tl.load(parts + 2 * stride + i + lane, mask=here, other=0) + n * off * off
    whole = tl.sum(count)
    shift = divide(tl.sum(first), whole)
    variance = tl.maximum(divide(tl.sum(second), whole) - shift * shift, 0, propagate_nan=tl.PropagateNan.ALL)
    return pilot + shift, variance, rsqrt(variance + EPSILON)


@triton.jit
def store_part(parts, at, stride, values, inside, count, ACC: tl.constexpr):
    """Count, mean and sum of squared deviations of some values, as :func:`statistics` reads them."""
    count = count.to(ACC)
    mean = divide(tl.sum(tl.where(inside, values, 0)), tl.maximum(count, 1))
    off = tl.where(inside, values - mean, 0)
    tl.store(parts + at, count)
    tl.store(parts + stride + at, mean)
    tl.store(parts + 2 * stride + at, tl.sum(off * off))


@triton.jit
def store_statistics(parts, mean, variance):
    """As one part, which gives :func:`statistics` the same bits again."""
    tl.store(parts, mean * 0 + 1)
    tl.store(parts + 1, mean)
    tl.store(parts + 2, variance)


@triton.jit
def load_statistics(parts):
    """Mean and reciprocal standard deviation that :func:`store_statistics` kept."""
    return tl.load(parts + 1), rsqrt(tl.load(parts + 2) + EPSILON)


@triton.jit
def exp_of_score(x, FAST: tl.constexpr):
    return tl.exp(x) if FAST else exp(x)


@triton.jit
def factor_and_offset(weight, bias, c, keep, HAS_BIAS: tl.constexpr, ACC: tl.constexpr):
    """Factor and offset of a per-channel scaling."""
    factor = tl.load(weight + c, mask=keep, other=0).to(ACC)
    if HAS_BIAS:
        return factor, tl.load(bias + c, mask=keep, other=0).to(ACC)
    else:
        return factor, tl.zeros_like(factor)


@triton.jit
def added(source, number, stride, c, keep, ACC: tl.constexpr):
    total = tl.zeros(c.shape, ACC)
    for i in range(number):
        total += tl.load(source + i * stride + c, mask=keep, other=0)
    return total


@triton.jit
def store_gate(logits, stride, value, peak, whole, keep, UNIT: tl.constexpr):
    """Gate, its argument, the softmax's largest score and the inverse of its denominator, ``stride`` apart."""
    tl.store(logits, sigmoid(value, UNIT), mask=keep)
    tl.store(logits + stride, value, mask=keep)
    tl.store(logits + 2 * stride, peak, mask=keep)
    tl.store(logits + 3 * stride, divide(whole * 0 + 1, whole), mask=keep)


@triton.jit
def gate_gradient(logits, grad_gate, pieces, stride, c, keep, UNIT: tl.constexpr, ACC: tl.constexpr):
    """The argument, the largest score, and the argument's gradient over the denominator; see :func:`store_gate`."""
    gate = tl.load(logits + c, mask=keep, other=0)
    value = tl.load(logits + stride + c, mask=keep, other=0)
    peak = tl.load(logits + 2 * stride + c, mask=keep, other=0)
    share = tl.load(logits + 3 * stride + c, mask=keep, other=0)
    return value, peak, added(grad_gate, pieces, stride, c, keep, ACC) * sigmoid_slope(gate, UNIT) * share


@triton.jit
def store_gradients(
    sums, C, keep, grad_gamma, grad_beta, grad_q, grad_q0, grad_k, grad_k0, grad_v, grad_v0,
    BIAS_Q: tl.constexpr, BIAS_K: tl.constexpr, BIAS_V: tl.constexpr,
):  # fmt: skip
    """Of the norm and of q, k and v, in the order of the parameters."""
    tl.store(sums, grad_gamma, mask=keep)
    tl.store(sums + C, grad_beta, mask=keep)
    tl.store(sums + 2 * C, grad_q, mask=keep)
    if BIAS_Q:
        tl.store(sums + 3 * C, grad_q0, mask=keep)
    sums += (3 + BIAS_Q) * C
    tl.store(sums, grad_k, mask=keep)
    if BIAS_K:
        tl.store(sums + C, grad_k0, mask=keep)
    sums += (1 + BIAS_K) * C
    tl.store(sums, grad_v, mask=keep)
    if BIAS_V:
        tl.store(sums + C, grad_v0, mask=keep)
