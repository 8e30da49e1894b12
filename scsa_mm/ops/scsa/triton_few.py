"""The attention between channels where the pooled map has up to four positions, forward and backward.

Then the product of a query with a key is less work than to read it from memory, and the C x C products are made where
they are needed, from queries and keys that ``project`` wrote. ``N`` is 1 or 4, the least that is no less than n.
"""

import triton
import triton.language as tl

from ..triton_math import divide
from . import triton_common as common


@triton.jit(do_not_specialize=['B', 'C', 'n', 'd', 'number', 'pieces'])
def project(
    pooled, parts, gamma, beta, q, q_bias, k, k_bias, v, v_bias, logits, grad_gate, projected, norm_stats,
    B, C, n, d, number, pieces,
    N: tl.constexpr, BIAS_Q: tl.constexpr, BIAS_K: tl.constexpr, BIAS_V: tl.constexpr, UNIT: tl.constexpr,
    BACK: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """(B, 2 N + 2, C): queries over the root of d, keys, mean of the values; for backward ``gate_gradient``'s last."""
    b = tl.program_id(1)
    mean, variance, rstd = common.statistics(parts + b * 3 * number, number, number, ACC)
    if not BACK and tl.program_id(0) == 0:
        common.store_statistics(norm_stats + 3 * b, mean, variance)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    keep = c < C
    gamma_c, beta_c = common.factor_and_offset(gamma, beta, c, keep, True, ACC)
    q_c, q0_c = common.factor_and_offset(q, q_bias, c, keep, BIAS_Q, ACC)
    k_c, k0_c = common.factor_and_offset(k, k_bias, c, keep, BIAS_K, ACC)
    v_c, v0_c = common.factor_and_offset(v, v_bias, c, keep, BIAS_V, ACC)
    root = common.rsqrt(tl.zeros([], ACC) + d)
    to = projected + b * (2 * N + 2) * C + c
    total = tl.zeros([BC], ACC)
    for p in tl.static_range(N):
        here = keep & (p < n)
        y = (tl.load(pooled + (b * n + p) * C + c, mask=here, other=0) - mean) * rstd
        y = gamma_c * y + beta_c
        total += tl.where(here, y, 0)
        tl.store(to + p * C, tl.where(here, (q_c * y + q0_c) * root, 0), mask=keep)
        tl.store(to + (N + p) * C, tl.where(here, k_c * y + k0_c, 0), mask=keep)
    tl.store(to + 2 * N * C, v_c * (total / n) + v0_c, mask=keep)
    if BACK:
        value, peak, gradient = common.gate_gradient(
            logits + b * C, grad_gate + b * C, pieces, B * C, c, keep, UNIT, ACC
        )
        tl.store(to + (2 * N + 1) * C, gradient, mask=keep)


@triton.jit
def _load(source, C, c, keep, N: tl.constexpr):
    v0 = tl.load(source + c, mask=keep, other=0)
    v1, v2, v3 = v0, v0, v0
    if N > 1:
        v1 = tl.load(source + C + c, mask=keep, other=0)
        v2 = tl.load(source + 2 * C + c, mask=keep, other=0)
        v3 = tl.load(source + 3 * C + c, mask=keep, other=0)
    return v0, v1, v2, v3


@triton.jit
def _score(q0, q1, q2, q3, k0, k1, k2, k3, N: tl.constexpr):
    """Rounded in the same way wherever it is made; see ``triton_channel``."""
    score = q0 * k0
    if N > 1:
        score = tl.fma(q3, k3, tl.fma(q2, k2, tl.fma(q1, k1, score)))
    return score


@triton.jit
def _share(q0, q1, q2, q3, k0, k1, k2, k3, peak, N: tl.constexpr, FAST: tl.constexpr):
    """e to the score less the largest one."""
    if N > 1:
        score = _score(q0, q1, q2, q3, k0, k1, k2, k3, N) - peak
    else:
        score = tl.fma(q0, k0, -peak)
    return common.exp_of_score(score, FAST)


@triton.jit(do_not_specialize=['B', 'C', 'd'])
def attend(
    projected, logits, B, C, d,
    N: tl.constexpr, UNIT: tl.constexpr, FAST: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """As ``triton_channel.attend``. Scores are made twice, first for the largest of each row."""
    b = tl.program_id(2)
    head = tl.program_id(1)
    projected += b * (2 * N + 2) * C
    in_head = tl.program_id(0) * BC + tl.arange(0, BC)
    c = head * d + in_head
    keep_c = in_head < d
    q0, q1, q2, q3 = _load(projected, C, c, keep_c, N)
    q0, q1, q2, q3 = q0[:, None], q1[:, None], q2[:, None], q3[:, None]
    keys = projected + N * C
    values = projected + 2 * N * C
    if N > 1:
        top = tl.full([BC, BE], common.NEVER, ACC)
        for first in range(0, d, BE):
            e_in = first + tl.arange(0, BE)
            keep_e = e_in < d
            k0, k1, k2, k3 = _load(keys, C, head * d + e_in, keep_e, N)
            score = _score(q0, q1, q2, q3, k0[None, :], k1[None, :], k2[None, :], k3[None, :], N)
            top = tl.maximum(top, tl.where(keep_e[None, :], score, common.NEVER))
        peak = tl.max(top, 1)
    else:
        # A product of two numbers is largest for the largest or the smallest key.
        high = tl.full([BE], common.NEVER, ACC)
        low = -high
        for first in range(0, d, BE):
            e_in = first + tl.arange(0, BE)
            keep_e = e_in < d
            key = tl.load(keys + head * d + e_in, mask=keep_e, other=0)
            high = tl.maximum(high, tl.where(keep_e, key, common.NEVER), propagate_nan=tl.PropagateNan.ALL)
            low = tl.minimum(low, tl.where(keep_e, key, -common.NEVER))
        q = tl.reshape(q0, [BC])
        peak = tl.maximum(q * tl.max(high), q * tl.min(low))
    below = tl.zeros([BC, BE], ACC)
    result = tl.zeros([BC, BE], ACC)
    for first in range(0, d, BE):
        e_in = first + tl.arange(0, BE)
        e = head * d + e_in
        keep_e = e_in < d
        k0, k1, k2, k3 = _load(keys, C, e, keep_e, N)
        share = _share(q0, q1, q2, q3, k0[None, :], k1[None, :], k2[None, :], k3[None, :], peak[:, None], N, FAST)
        share = tl.where(keep_e[None, :], share, 0)
        below += share
        result += share * tl.load(values + e, mask=keep_e, other=0)[None, :]
    whole = tl.sum(below, 1)
    value = divide(tl.sum(result, 1), whole)
    common.store_gate(logits + b * C + c, B * C, value, peak, whole, keep_c, UNIT)


@triton.jit(do_not_specialize=['B', 'C', 'n', 'd', 'size'])
def attend_backward(
    projected, pooled, norm_stats, logits, gamma, beta, q, k, v, grad_y, centred, offset, sums, B, C, n, d, size,
    N: tl.constexpr, BIAS_Q: tl.constexpr, BIAS_K: tl.constexpr, BIAS_V: tl.constexpr,
    FAST: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """From the gradient of the channel gates to that of the normalised pooled map.

    ``grad_y`` and ``centred`` are (B, C, n), channels-last grad_y alone, as (B, n, C); offset is 0. Gradients of norm,
    q, k and v for each image go to ``sums`` (images, size). A program takes BC channels, as queries and as keys.
    """
    b = tl.program_id(2)
    head = tl.program_id(1)
    projected += b * (2 * N + 2) * C
    keys = projected + N * C
    values = projected + 2 * N * C
    gradients = values + C
    results = logits + (B + b) * C
    peaks = logits + (2 * B + b) * C
    in_head = tl.program_id(0) * BC + tl.arange(0, BC)
    c = head * d + in_head
    keep_c = in_head < d
    q0, q1, q2, q3 = _load(projected, C, c, keep_c, N)
    k0, k1, k2, k3 = _load(keys, C, c, keep_c, N)
    q0, q1, q2, q3 = q0[:, None], q1[:, None], q2[:, None], q3[:, None]
    k0, k1, k2, k3 = k0[:, None], k1[:, None], k2[:, None], k3[:, None]
    of_c = tl.load(gradients + c, mask=keep_c, other=0)[:, None]
    value_c = tl.load(values + c, mask=keep_c, other=0)[:, None]
    result_c = tl.load(results + c, mask=keep_c, other=0)[:, None]
    peak_c = tl.load(peaks + c, mask=keep_c, other=0)[:, None]
    dq0 = tl.zeros([BC, BE], ACC)
    dk0 = tl.zeros([BC, BE], ACC)
    if N > 1:
        dq1, dq2, dq3, dk1, dk2, dk3 = dq0, dq0, dq0, dk0, dk0, dk0
    shares = tl.zeros([BC, BE], ACC)
    for first in range(0, d, BE):
        e_in = first + tl.arange(0, BE)
        e = head * d + e_in
        keep_e = e_in < d
        qe0, qe1, qe2, qe3 = _load(projected, C, e, keep_e, N)
        ke0, ke1, ke2, ke3 = _load(keys, C, e, keep_e, N)
        qe0, qe1, qe2, qe3 = qe0[None, :], qe1[None, :], qe2[None, :], qe3[None, :]
        ke0, ke1, ke2, ke3 = ke0[None, :], ke1[None, :], ke2[None, :], ke3[None, :]
        of_e = tl.load(gradients + e, mask=keep_e, other=0)[None, :]
        value_e = tl.load(values + e, mask=keep_e, other=0)[None, :]
        result_e = tl.load(results + e, mask=keep_e, other=0)[None, :]
        peak_e = tl.load(peaks + e, mask=keep_e, other=0)[None, :]
        # c asks, e answers.
        share = tl.where(keep_e[None, :], _share(q0, q1, q2, q3, ke0, ke1, ke2, ke3, peak_c, N, FAST), 0)
        asks = share * (value_e - result_c)
        dq0 += asks * ke0
        # e asks, c answers.
        share = _share(qe0, qe1, qe2, qe3, k0, k1, k2, k3, peak_e, N, FAST) * of_e
        shares += share
        answers = share * (value_c - result_e)
        dk0 += answers * qe0
        if N > 1:
            dq1 += asks * ke1
            dq2 += asks * ke2
            dq3 += asks * ke3
            dk1 += answers * qe1
            dk2 += answers * qe2
            dk3 += answers * qe3

    mean, rstd = common.load_statistics(norm_stats + 3 * b)
    root = common.rsqrt(tl.zeros([], ACC) + d)
    of_c = tl.reshape(of_c, [BC]) * root
    gamma_c, beta_c = common.factor_and_offset(gamma, beta, c, keep_c, True, ACC)
    q_c = tl.load(q + c, mask=keep_c, other=0).to(ACC)
    k_c = tl.load(k + c, mask=keep_c, other=0).to(ACC)
    v_c = tl.load(v + c, mask=keep_c, other=0).to(ACC)
    grad_v = tl.sum(shares, 1)
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
        here = keep_c & (p < n)
        less = tl.where(here, tl.load(pooled + (b * n + p) * C + c, mask=here, other=0) - mean, 0)
        y = less * rstd
        dq = tl.where(here, dq * of_c, 0)
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
            tl.store(centred + (b * C + c) * n + p, less, mask=here)
    tl.store(offset + b * C + c, tl.zeros([BC], ACC), mask=keep_c)
    common.store_gradients(
        sums + b * size + 4 * C + c, C, keep_c, grad_gamma, grad_beta, grad_q, grad_q0, grad_k, grad_k0,
        grad_v * (total / n), grad_v, BIAS_Q, BIAS_K, BIAS_V,
    )  # fmt: skip
