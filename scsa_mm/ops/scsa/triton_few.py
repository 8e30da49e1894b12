"""The attention between channels where the pooled map has up to four positions, forward and backward.

Then the product of a query with a key is less work than to read it from memory: both kernels make the C x C products
where they need them. ``N`` is 1 or 4, the least that is no less than n.
"""

import triton
import triton.language as tl

from ..triton_math import divide, exp
from . import triton_common as common


@triton.jit
def _position(pooled, p: tl.constexpr, c, keep, n, C, mean, rstd):
    """A position of the normalised map; zeros if it has no such."""
    here = keep & (p < n)
    return tl.where(here, (tl.load(pooled + p * C + c, mask=here, other=0) - mean) * rstd, 0), here


@triton.jit
def _affine(factor, offset, y, here):
    """Rounded in the same way wherever it is made; see ``triton_channel``."""
    return tl.where(here, tl.fma(factor, y, offset), 0)


@triton.jit
def _score(q0, q1, q2, q3, k0, k1, k2, k3, N: tl.constexpr):
    score = q0 * k0
    if N > 1:
        score = tl.fma(q3, k3, tl.fma(q2, k2, tl.fma(q1, k1, score)))
    return score


@triton.jit
def _projected(pooled, weight, bias, c, keep, n, C, mean, rstd, gamma, beta, scale,
                HAS_BIAS: tl.constexpr, N: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """Queries or keys of all positions, times ``scale``."""
    factor, offset = common.factor_and_offset(weight, bias, c, keep, HAS_BIAS, ACC)
    factor *= scale
    offset *= scale
    y, here = _position(pooled, 0, c, keep, n, C, mean, rstd)
    p0 = _affine(factor, offset, tl.fma(gamma, y, beta), here)
    p1, p2, p3 = p0, p0, p0
    if N > 1:
        y, here = _position(pooled, 1, c, keep, n, C, mean, rstd)
        p1 = _affine(factor, offset, tl.fma(gamma, y, beta), here)
        y, here = _position(pooled, 2, c, keep, n, C, mean, rstd)
        p2 = _affine(factor, offset, tl.fma(gamma, y, beta), here)
        y, here = _position(pooled, 3, c, keep, n, C, mean, rstd)
        p3 = _affine(factor, offset, tl.fma(gamma, y, beta), here)
    return p0, p1, p2, p3


@triton.jit
def _mean_value(pooled, weight, bias, c, keep, n, C, mean, rstd, gamma, beta,
                 HAS_BIAS: tl.constexpr, N: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    factor, offset = common.factor_and_offset(weight, bias, c, keep, HAS_BIAS, ACC)
    y, here = _position(pooled, 0, c, keep, n, C, mean, rstd)
    if N > 1:
        for p in tl.static_range(1, 4):
            further, here = _position(pooled, p, c, keep, n, C, mean, rstd)
            y += further
        y /= n
    return factor * (gamma * y + beta) + offset


@triton.jit
def _exp(x, FAST: tl.constexpr):
    return tl.exp(x) if FAST else exp(x)


@triton.jit(do_not_specialize=['B', 'C', 'n', 'd', 'number'])
def attend(
    pooled, parts, gamma, beta, q, q_bias, k, k_bias, v, v_bias, logits, norm_stats, B, C, n, d, number,
    N: tl.constexpr, BIAS_Q: tl.constexpr, BIAS_K: tl.constexpr, BIAS_V: tl.constexpr, UNIT: tl.constexpr,
    FAST: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """As ``triton_channel.attend``."""
    b = tl.program_id(2)
    head = tl.program_id(1)
    mean, variance, rstd = common.statistics(parts + b * 3 * number, number, number, 512, ACC)
    if tl.program_id(0) + head == 0:
        tl.store(norm_stats + 3 * b, mean * 0 + 1)
        tl.store(norm_stats + 3 * b + 1, mean)
        tl.store(norm_stats + 3 * b + 2, variance)
    pooled += b * n * C
    in_head = tl.program_id(0) * BC + tl.arange(0, BC)
    c = head * d + in_head
    keep_c = in_head < d
    gamma_c, beta_c = common.factor_and_offset(gamma, beta, c, keep_c, True, ACC)
    root = common.rsqrt(tl.zeros([], ACC) + d)
    q0, q1, q2, q3 = _projected(pooled, q, q_bias, c, keep_c, n, C, mean, rstd, gamma_c, beta_c, root, BIAS_Q, N, ACC)
    top = tl.full([BC, BE], common.NEVER, ACC)
    below = tl.zeros([BC, BE], ACC)
    result = tl.zeros([BC, BE], ACC)
    for first in range(0, d, BE):
        e_in = first + tl.arange(0, BE)
        e = head * d + e_in
        keep_e = e_in < d
        gamma_e, beta_e = common.factor_and_offset(gamma, beta, e, keep_e, True, ACC)
        k0, k1, k2, k3 = _projected(
            pooled, k, k_bias, e, keep_e, n, C, mean, rstd, gamma_e, beta_e, 1.0, BIAS_K, N, ACC
        )
        mean_v = _mean_value(pooled, v, v_bias, e, keep_e, n, C, mean, rstd, gamma_e, beta_e, BIAS_V, N, ACC)
        score = _score(
            q0[:, None], q1[:, None], q2[:, None], q3[:, None],
            k0[None, :], k1[None, :], k2[None, :], k3[None, :], N,
        )  # fmt: skip
        score = tl.where(keep_e[None, :], score, common.NEVER)
        peak = tl.maximum(top, score)
        share = _exp(score - peak, FAST)
        decay = _exp(top - peak, FAST)
        below = below * decay + share
        result = result * decay + share * mean_v[None, :]
        top = peak
    peak = tl.max(top, 1)
    decay = _exp(top - peak[:, None], FAST)
    whole = tl.sum(below * decay, 1)
    value = divide(tl.sum(result * decay, 1), whole)
    common.store_gate(logits + b * C + c, B * C, value, peak, whole, keep_c, UNIT)


@triton.jit(do_not_specialize=['B', 'C', 'n', 'd', 'pieces', 'size'])
def attend_backward(
    pooled, norm_stats, logits, grad_gate, gamma, beta, q, q_bias, k, k_bias, v, v_bias,
    grad_y, centred, offset, sums, B, C, n, d, pieces, size,
    N: tl.constexpr, BIAS_Q: tl.constexpr, BIAS_K: tl.constexpr, BIAS_V: tl.constexpr, UNIT: tl.constexpr,
    FAST: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """From the gradient of the channel gates, ``pieces`` summands each, to that of the normalised pooled map.

    ``grad_y`` and ``centred`` are (B, C, n), channels-last grad_y alone, as (B, n, C); offset is 0. Gradients of norm,
    q, k and v for each image go to ``sums`` (images, size). A program takes BC channels, as queries and as keys.
    """
    b = tl.program_id(2)
    head = tl.program_id(1)
    mean = tl.load(norm_stats + 3 * b + 1)
    rstd = common.rsqrt(tl.load(norm_stats + 3 * b + 2) + common.EPSILON)
    pooled += b * n * C
    logits += b * C
    grad_gate += b * C
    in_head = tl.program_id(0) * BC + tl.arange(0, BC)
    c = head * d + in_head
    keep_c = in_head < d
    gamma_c, beta_c = common.factor_and_offset(gamma, beta, c, keep_c, True, ACC)
    root = common.rsqrt(tl.zeros([], ACC) + d)
    q0, q1, q2, q3 = _projected(pooled, q, q_bias, c, keep_c, n, C, mean, rstd, gamma_c, beta_c, root, BIAS_Q, N, ACC)
    k0, k1, k2, k3 = _projected(pooled, k, k_bias, c, keep_c, n, C, mean, rstd, gamma_c, beta_c, 1.0, BIAS_K, N, ACC)
    mean_v_c = _mean_value(pooled, v, v_bias, c, keep_c, n, C, mean, rstd, gamma_c, beta_c, BIAS_V, N, ACC)
    result_c, peak_c, of_c = common.gate_gradient(logits, grad_gate, pieces, B * C, c, keep_c, UNIT, ACC)

    dq0 = tl.zeros([BC, BE], ACC)
    dk0 = tl.zeros([BC, BE], ACC)
    if N > 1:
        dq1, dq2, dq3, dk1, dk2, dk3 = dq0, dq0, dq0, dk0, dk0, dk0
    shares = tl.zeros([BC, BE], ACC)
    for first in range(0, d, BE):
        e_in = first + tl.arange(0, BE)
        e = head * d + e_in
        keep_e = e_in < d
        gamma_e, beta_e = common.factor_and_offset(gamma, beta, e, keep_e, True, ACC)
        qe0, qe1, qe2, qe3 = _projected(
            pooled, q, q_bias, e, keep_e, n, C, mean, rstd, gamma_e, beta_e, root, BIAS_Q, N, ACC
        )
        ke0, ke1, ke2, ke3 = _projected(
            pooled, k, k_bias, e, keep_e, n, C, mean, rstd, gamma_e, beta_e, 1.0, BIAS_K, N, ACC
        )
        mean_v_e = _mean_value(pooled, v, v_bias, e, keep_e, n, C, mean, rstd, gamma_e, beta_e, BIAS_V, N, ACC)
        result_e, peak_e, of_e = common.gate_gradient(logits, grad_gate, pieces, B * C, e, keep_e, UNIT, ACC)
        # c asks, e answers. What is beyond the head has keys of 0, and of_e of 0 below.
        score = _score(
            q0[:, None], q1[:, None], q2[:, None], q3[:, None],
            ke0[None, :], ke1[None, :], ke2[None, :], ke3[None, :], N,
        )  # fmt: skip
        share = tl.where(keep_e[None, :], _exp(score - peak_c[:, None], FAST), 0)
        asks = share * of_c[:, None] * (mean_v_e[None, :] - result_c[:, None])
        dq0 += asks * ke0[None, :]
        # e asks, c answers.
        score = _score(
            qe0[None, :], qe1[None, :], qe2[None, :], qe3[None, :],
            k0[:, None], k1[:, None], k2[:, None], k3[:, None], N,
        )  # fmt: skip
        share = _exp(score - peak_e[None, :], FAST) * of_e[None, :]
        shares += share
        answers = share * (mean_v_c[:, None] - result_e[None, :])
        dk0 += answers * qe0[None, :]
        if N > 1:
            dq1 += asks * ke1[None, :]
            dq2 += asks * ke2[None, :]
            dq3 += asks * ke3[None, :]
            dk1 += answers * qe1[None, :]
            dk2 += answers * qe2[None, :]
            dk3 += answers * qe3[None, :]

    grad_v = tl.sum(shares, 1)
    q_c, _ = common.factor_and_offset(q, q_bias, c, keep_c, BIAS_Q, ACC)
    k_c, _ = common.factor_and_offset(k, k_bias, c, keep_c, BIAS_K, ACC)
    v_c, _ = common.factor_and_offset(v, v_bias, c, keep_c, BIAS_V, ACC)
    grad_gamma = tl.zeros([BC], ACC)
    grad_beta = tl.zeros([BC], ACC)
    grad_q = tl.zeros([BC], ACC)
    grad_q0 = tl.zeros([BC], ACC)
    grad_k = tl.zeros([BC], ACC)
    grad_k0 = tl.zeros([BC], ACC)
    total = tl.zeros([BC], ACC)
    for p in tl.static_range(N):
        if p == 0:
            dq, dk = tl.sum(dq0, 1), tl.sum(dk0, 1)
        elif p == 1:
            dq, dk = tl.sum(dq1, 1), tl.sum(dk1, 1)
        elif p == 2:
            dq, dk = tl.sum(dq2, 1), tl.sum(dk2, 1)
        else:
            dq, dk = tl.sum(dq3, 1), tl.sum(dk3, 1)
        y, here = _position(pooled, p, c, keep_c, n, C, mean, rstd)
        dq = tl.where(here, dq * root, 0)
        dk = tl.where(here, dk, 0)
        of_y = dq * q_c + dk * k_c + tl.where(here, grad_v * v_c / n, 0)
        normed = tl.where(here, gamma_c * y + beta_c, 0)
        grad_gamma += of_y * y
        grad_beta += of_y
        grad_q += dq * normed
        grad_q0 += dq
        grad_k += dk * normed
        grad_k0 += dk
        total += normed
        if LAST:
            tl.store(grad_y + (b * n + p) * C + c, of_y, mask=here)
        else:
            tl.store(grad_y + (b * C + c) * n + p, of_y, mask=here)
            tl.store(centred + (b * C + c) * n + p, y / rstd, mask=here)
    tl.store(offset + b * C + c, tl.zeros([BC], ACC), mask=keep_c)
    common.store_gradients(
        sums + b * size + 4 * C + c, C, keep_c, grad_gamma, grad_beta, grad_q, grad_q0, grad_k, grad_k0,
        grad_v * (total / n), grad_v, BIAS_Q, BIAS_K, BIAS_V,
    )  # fmt: skip
