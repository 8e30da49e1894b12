"""The kernels of SCSA's forward pass; ``triton_common`` says what all have in common."""

import triton
import triton.language as tl

from ..arithmetic import EPS
from . import triton_common as common

_EPS = tl.constexpr(EPS)


@triton.jit(do_not_specialize=['B', 'H', 'WV', 'chunk', 'blocks', 'rows', 'steps'])
def strips(
    x, by_row, by_col, B, C, H, WV, chunk, blocks, rows, steps,
    VEC: tl.constexpr, CHANNELS_LAST: tl.constexpr, ACC: tl.constexpr,
    BC: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Sums along rows, (steps, B, C, H), and along columns, (rows, B, C, W)."""
    W = WV * VEC
    step, row, block, b = common.program(tl.program_id(0), steps, rows, blocks)
    channel = block * BC + tl.arange(0, BC)
    width = step * BW + tl.arange(0, BW)
    c, w = channel[:, None, None], width[None, None, :]
    image = x + b.to(tl.int64) * (C * H * W)
    last = tl.minimum((row + 1) * chunk, H)
    down = tl.zeros([BC, BH, BW], ACC)
    for h0 in range(row * chunk, last, BH):
        height = h0 + tl.arange(0, BH)
        h = height[None, :, None]
        place = common.place(c, h, w, C, H, W, CHANNELS_LAST)
        v = tl.load(image + place, mask=(c < C) & (h < last) & (w < W), other=0).to(ACC)
        down += v
        to = ((step * B + b) * C + channel[:, None]) * H + height[None, :]
        tl.store(by_row + to, tl.sum(v, 2), mask=(channel[:, None] < C) & (height[None, :] < last))
    to = ((row * B + b) * C + channel[:, None]) * W + width[None, :]
    tl.store(by_col + to, tl.sum(down, 1), mask=(channel[:, None] < C) & (width[None, :] < W))


@triton.jit(do_not_specialize=['B', 'H', 'W', 'rows', 'steps'])
def gates(
    by_row, by_col, means, gate, stats,
    weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3, gamma_h, beta_h, gamma_w, beta_w,
    B, C, H, W, rows, steps,
    K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, K3: tl.constexpr, KMAX: tl.constexpr,
    AGAIN: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Row and column gates from the sums; one program for an image, direction and group of channels.

    With ``AGAIN`` the means and the statistics of the norm are there already and only the gates are missing.
    """
    group, direction, b, weight, bias, k, L = common.strip_group(
        tl.program_id(0), weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3, H, W, K0, K1, K2, K3
    )
    D = C // 4
    first = b * C + group * D
    here = direction * (B * C * H) + first * L
    means += here
    gate += here
    stats += tl.program_id(0) * 2
    if AGAIN:
        mean = tl.load(stats)
        rstd = tl.load(stats + 1)
    else:
        count = tl.where(direction == 0, steps, rows)
        source = by_row
        if direction == 1:
            source = by_col
        source += first * L
        for c0 in range(0, D, BC):
            c = c0 + tl.arange(0, BC)[:, None]
            for l0 in range(0, L, BL):
                p = l0 + tl.arange(0, BL)[None, :]
                inside = (c < D) & (p < L)
                total = tl.zeros([BC, BL], ACC)
                for i in range(count):
                    total += tl.load(source + i * (B * C * L) + c * L + p, mask=inside, other=0)
                tl.store(means + c * L + p, total / tl.where(direction == 0, W, H), mask=inside)
        tl.debug_barrier()  # other threads of this program read the means
        # Mean and sum of squared deviations, tile by tile (Chan et al.), as a sum of squares would cancel.
        mean = tl.zeros([], ACC)
        spread = tl.zeros([], ACC)
        seen = tl.zeros([], ACC)
        for c0 in range(0, D, BC):
            c = c0 + tl.arange(0, BC)[:, None]
            for l0 in range(0, L, BL):
                p = l0 + tl.arange(0, BL)[None, :]
                inside = (c < D) & (p < L)
                z = common.convolve(means, weight, bias, c, p, D, L, k, KMAX, ACC)
                tl.store(gate + c * L + p, z, mask=inside)
                number = (tl.minimum(BC, D - c0) * tl.minimum(BL, L - l0)).to(ACC)
                middle = tl.sum(tl.where(inside, z, 0)) / number
                off = tl.where(inside, z - middle, 0)
                step = middle - mean
                spread += tl.sum(off * off) + step * step * (seen * number / (seen + number))
                seen += number
                mean += step * (number / seen)
        rstd = 1 / tl.sqrt(spread / seen + _EPS)
        tl.store(stats, mean)
        tl.store(stats + 1, rstd)
        tl.debug_barrier()
    gamma, beta = gamma_h, beta_h
    if direction == 1:
        gamma, beta = gamma_w, beta_w
    for c0 in range(0, D, BC):
        c = c0 + tl.arange(0, BC)[:, None]
        scale = tl.load(gamma + group * D + c, mask=c < D, other=0).to(ACC)
        shift = tl.load(beta + group * D + c, mask=c < D, other=0).to(ACC)
        for l0 in range(0, L, BL):
            p = l0 + tl.arange(0, BL)[None, :]
            inside = (c < D) & (p < L)
            if AGAIN:
                z = common.convolve(means, weight, bias, c, p, D, L, k, KMAX, ACC)
            else:
                z = tl.load(gate + c * L + p, mask=inside, other=0)
            tl.store(gate + c * L + p, common.sigmoid((z - mean) * rstd * scale + shift, UNIT), mask=inside)


@triton.jit(do_not_specialize=['B', 'H', 'WV', 'kh', 'kw', 'nh', 'nw', 'ch', 'cw', 'blocks', 'steps'])
def pool(
    x, gate, pooled, B, C, H, WV, kh, kw, nh, nw, ph, pw, ch, cw, blocks, steps,
    VEC: tl.constexpr, CHANNELS_LAST: tl.constexpr, ACC: tl.constexpr,
    BC: tl.constexpr, KH: tl.constexpr, BQ: tl.constexpr, KW: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Means of x * a_h * a_w over whole windows: (B, C, nh, nw). A program takes some windows of one row.

    One window only if it has several cells across.
    """
    W = WV * VEC
    step, row, block, b = common.program(tl.program_id(0), steps, nh, blocks)
    channel = block * BC + tl.arange(0, BC)
    keep_c = (channel < C)[:, None]
    plane = (b * C + channel)[:, None]
    c = channel[:, None, None]
    image = x + b.to(tl.int64) * (C * H * W)
    total = tl.zeros([BC, BQ], ACC)
    for j in range(pw):
        q0 = step * BQ * pw + j
        width, within = common.columns(q0, W, kw, pw, cw, CHANNELS_LAST, BQ, KW, BW)
        a_w = tl.load(gate + B * C * H + plane * W + width[None, :], mask=keep_c & within[None, :], other=0)
        down = tl.zeros([BC, BW], ACC)
        for i in range(ph):
            h0 = row * kh + i * ch
            last = tl.minimum(h0 + ch, (row + 1) * kh)
            height = h0 + tl.arange(0, KH)
            a_h = tl.load(gate + plane * H + height[None, :], mask=keep_c & (height < last)[None, :], other=0)
            h = height[None, :, None]
            v = tl.load(
                image + common.place(c, h, width[None, None, :], C, H, W, CHANNELS_LAST),
                mask=(c < C) & (h < last) & within[None, None, :],
                other=0,
            ).to(ACC)
            down += tl.sum(v * a_h[:, :, None], 1)
        total += common.cell_sums(down * a_w, q0, nw * kw, kw, pw, cw, CHANNELS_LAST, BC, BQ, KW, BW)
    q = (step * BQ + tl.arange(0, BQ))[None, :]
    tl.store(pooled + (plane * nh + row) * nw + q, total / (kh * kw), mask=keep_c & (q < nw))


@triton.jit(do_not_specialize=['B', 'n', 'd', 'per_head'])
def attend(
    pooled, norm_stats, logits, gamma, beta, q, q_bias, k, k_bias, v, v_bias, B, C, n, d, per_head,
    BIAS_Q: tl.constexpr, BIAS_K: tl.constexpr, BIAS_V: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
    BS: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Channel gates. ``logits`` (3, B, C): gate, its argument, and the logarithm of the softmax's denominator.

    A program takes BC queries and runs over the keys of their head with a running maximum, so that the matrix of the
    attention never exists. With the normalised map Y (C, n) and per-channel factors and offsets,
    q_c . k_e = sum (A_c Y_c + B_c) (D_e Y_e + E_e) needs only the products Y_c . Y_e and the sums of Y.
    """
    pid = tl.program_id(0)
    block = pid % per_head
    head = pid // per_head % (C // d)
    b = pid // (per_head * (C // d))
    pooled += b * C * n
    total = C * n
    # Deviations from the mean of the first values, so that the sum of squares does not cancel.
    lane = tl.arange(0, BS)
    value = tl.load(pooled + lane, mask=lane < total, other=0)
    guess = tl.sum(value) / tl.minimum(BS, total)
    off = tl.where(lane < total, value - guess, 0)
    first = off
    second = off * off
    for i in range(BS, total, BS):
        inside = i + lane < total
        off = tl.where(inside, tl.load(pooled + i + lane, mask=inside, other=0) - guess, 0)
        first += off
        second += off * off
    step = tl.sum(first) / total
    mean = guess + step
    rstd = 1 / tl.sqrt(tl.maximum(tl.sum(second) / total - step * step, 0) + _EPS)
    if pid % (per_head * (C // d)) == 0:
        tl.store(norm_stats + 2 * b, mean)
        tl.store(norm_stats + 2 * b + 1, rstd)

    in_head = block * BC + tl.arange(0, BC)
    c = head * d + in_head
    keep_c = in_head < d
    gamma_c, beta_c = common.factor_and_offset(gamma, beta, c, keep_c, True, ACC)
    q_c, q0_c = common.factor_and_offset(q, q_bias, c, keep_c, BIAS_Q, ACC)
    a_c = gamma_c * q_c
    b_c = beta_c * q_c + q0_c
    root = 1 / tl.sqrt(tl.zeros([], ACC) + d)
    top = tl.full([BC], float('-inf'), ACC)
    below = tl.zeros([BC], ACC)
    result = tl.zeros([BC], ACC)
    for e0 in range(0, d, BE):
        e_in = e0 + tl.arange(0, BE)
        e = head * d + e_in
        keep_e = e_in < d
        product, sum_c, sum_e = common.gram(pooled, mean, c, e, keep_c, keep_e, n, BN, BC, BE, ACC)
        product *= rstd * rstd
        sum_c *= rstd
        sum_e *= rstd
        gamma_e, beta_e = common.factor_and_offset(gamma, beta, e, keep_e, True, ACC)
        k_e, k0_e = common.factor_and_offset(k, k_bias, e, keep_e, BIAS_K, ACC)
        v_e, v0_e = common.factor_and_offset(v, v_bias, e, keep_e, BIAS_V, ACC)
        d_e = gamma_e * k_e
        shift_e = beta_e * k_e + k0_e
        score = a_c[:, None] * (d_e[None, :] * product + shift_e[None, :] * sum_c[:, None])
        score = (score + b_c[:, None] * (d_e * sum_e + shift_e * n)[None, :]) * root
        score = tl.where(keep_e[None, :], score, float('-inf'))
        peak = tl.maximum(top, tl.max(score, 1))
        share = tl.exp(score - peak[:, None])
        decay = tl.exp(top - peak)
        below = below * decay + tl.sum(share, 1)
        mean_v = v_e * (gamma_e * (sum_e / n) + beta_e) + v0_e
        result = result * decay + tl.sum(share * mean_v[None, :], 1)
        top = peak
    result = result / below
    at = logits + b * C + c
    tl.store(at, common.sigmoid(result, UNIT), mask=keep_c)
    tl.store(at + B * C, result, mask=keep_c)
    tl.store(at + 2 * B * C, top + tl.log(below), mask=keep_c)


@triton.jit(do_not_specialize=['B', 'H', 'WV', 'blocks', 'rows', 'steps'])
def scale(
    x, gate, gate_c, out, B, C, H, WV, blocks, rows, steps,
    VEC: tl.constexpr, CHANNELS_LAST: tl.constexpr, ACC: tl.constexpr,
    BC: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """x * a_h * a_w * g."""
    W = WV * VEC
    step, row, block, b = common.program(tl.program_id(0), steps, rows, blocks)
    c = (block * BC + tl.arange(0, BC))[:, None, None]
    h = (row * BH + tl.arange(0, BH))[None, :, None]
    w = (step * BW + tl.arange(0, BW))[None, None, :]
    keep_c, keep_h, keep_w = c < C, h < H, w < W
    place = b.to(tl.int64) * (C * H * W) + common.place(c, h, w, C, H, W, CHANNELS_LAST)
    inside = keep_c & keep_h & keep_w
    v = tl.load(x + place, mask=inside, other=0).to(ACC)
    plane = b * C + c
    g = tl.load(gate_c + plane, mask=keep_c, other=0)
    a_h = tl.load(gate + plane * H + h, mask=keep_c & keep_h, other=0)
    a_w = tl.load(gate + B * C * H + plane * W + w, mask=keep_c & keep_w, other=0)
    tl.store(out + place, v * (a_h * g) * a_w, mask=inside)
