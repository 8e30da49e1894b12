"""The kernels of EMA's forward pass; ``triton_common`` says what all have in common."""

import triton
import triton.language as tl

from ..arithmetic import EPS
from ..triton_math import divide, exp, place, rsqrt, sigmoid, strip_place
from . import triton_common as common

_EPS = tl.constexpr(EPS)


@triton.jit(do_not_specialize=[
    'B', 'C', 'H', 'W', 'c', 'steps', 'rows', 'blocks', 'stride_o', 'stride_i', 'stride_tap',
])  # fmt: skip
def gates(
    by_row, by_col, mix, mix_bias, filters, norm_bias, means, gate, stencil,
    B, C, H, W, c, steps, rows, blocks, stride_o, stride_i, stride_tap,
    HAS_MIX_BIAS: tl.constexpr, HAS_NORM_BIAS: tl.constexpr, LAST: tl.constexpr, MOST: tl.constexpr,
    BLOCK: tl.constexpr, AT_ONCE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Strip means and gates a, by the first ``blocks`` programs; by the others the stencil F (9, C)."""
    if tl.program_id(0) < blocks:
        L = H + W
        b, g, i, p, exists, at = common.strip_element(c, C // c, L, LAST, BLOCK)
        inside = exists & (b < B)
        total = common.strip_total(
            by_row, by_col, b, g * c + i, p, inside, B, C, H, W, steps, rows, LAST, AT_ONCE, tl.zeros([BLOCK], ACC)
        )
        tl.store(means + at, divide(total, tl.where(p < H, W, H).to(ACC)), mask=inside)
        tl.debug_barrier()  # the means of a group are read by other threads
        step = 1 if LAST else L
        first = means + at - i * step
        logit = common.optional(mix_bias, i, inside, HAS_MIX_BIAS, ACC)
        for k0 in range(0, c, 4):
            for j in tl.static_range(4):
                loaded = inside & (k0 + j < c)
                weight = tl.load(mix + i * c + k0 + j, mask=loaded, other=0).to(ACC)
                logit += weight * tl.load(first + (k0 + j) * step, mask=loaded, other=0)
        tl.store(gate + at, sigmoid(logit, False), mask=inside)
    else:
        e = (tl.program_id(0) - blocks) * BLOCK + tl.arange(0, BLOCK)
        inside = e < 9 * C
        o = tl.arange(0, MOST)
        most = tl.max(tl.where(o < c, common.optional(norm_bias, o, o < c, HAS_NORM_BIAS, ACC), -float('inf')), 0)
        weight = filters + e % C % c * stride_i + e // C * stride_tap
        total = tl.zeros([BLOCK], ACC)
        powers = tl.zeros([BLOCK], ACC)
        for k in range(c):
            power = exp(common.optional(norm_bias, tl.zeros([BLOCK], tl.int32) + k, inside, HAS_NORM_BIAS, ACC) - most)
            powers += power
            total += power * tl.load(weight + k * stride_o, mask=inside, other=0).to(ACC)
        tl.store(stencil + e, divide(total, powers), mask=inside)


@triton.jit(do_not_specialize=['B', 'CV', 'H', 'W', 'blocks', 'down', 'across', 'width'])
def moments(
    x, gate, parts, B, CV, H, W, blocks, down, across, width,
    LAST: tl.constexpr, VEC: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, NC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Mean of y = x a_h a_w and sum of its squared deviations in each tile, (tiles, 2, B, C).

    Sums are made of y less a pilot, the mean of the first step. If that holds one part in p of the tile, its own
    deviations bound what cancels: at most a factor of 1 + p is lost, however large the mean is.
    """
    C = CV * VEC
    b, block, row, col = common.program(blocks, down, across, LAST)
    lane = block * NC + tl.arange(0, NC)
    channel = common.spread_channels(lane, BW)
    h = (row * BH + tl.arange(0, BH))[None, None, :]
    image = x + b.to(tl.int64) * (C * H * W)
    gate, gate_h = common.load_gates(gate, b, channel, h, C, H, W, LAST)
    start = col * width
    end = tl.minimum(start + width, W)
    height = tl.minimum(H - row * BH, BH)
    pilot = tl.zeros([NC, 1, 1], ACC)
    first = tl.zeros([NC, BW], ACC)
    second = tl.zeros([NC, BW], ACC)
    for w0 in range(start, end, BW):
        w = (w0 + tl.arange(0, BW))[None, :, None]
        across_mask = (w < end) & (channel < C)
        inside = across_mask & (h < H)
        value = tl.load(image + place(channel, h, w, C, H, W, LAST), mask=inside, other=0).to(ACC)
        gate_w = tl.load(gate + strip_place(channel, H + w, C, H + W, LAST), mask=across_mask, other=0)
        y = common.gated(value, gate_h, gate_w, inside)
        if w0 == start:
            count = (height * tl.minimum(end - start, BW)).to(ACC)
            pilot = divide(tl.sum(tl.sum(y, 2), 1), count)[:, None, None]
        y = tl.where(inside, y - pilot, 0)
        first += tl.sum(y, 2)
        second += tl.sum(y * y, 2)
    count = (height * (end - start)).to(ACC)
    shift = divide(tl.sum(first, 1), count)
    deviations = tl.sum(second, 1) - count * shift * shift
    out = parts + ((row * across + col) * 2 * B + b) * C + lane
    tl.store(out, tl.reshape(pilot, [NC]) + shift, mask=lane < C)
    tl.store(out + B * C, tl.maximum(deviations, 0, propagate_nan=tl.PropagateNan.ALL), mask=lane < C)


@triton.jit(do_not_specialize=['B', 'C', 'H', 'W', 'c', 'rows', 'down', 'across', 'width', 'inner', 'jump'])
def norm(
    x, means, parts, filters, filters_bias, norm_weight, norm_bias, mean, rstd, scale, weight2, taps, constant,
    B, C, H, W, c, rows, down, across, width, inner, jump,
    HAS_NORM_BIAS: tl.constexpr, HAS_FILTERS_BIAS: tl.constexpr, LAST: tl.constexpr,
    LANES: tl.constexpr, BP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """For as many groups as a program holds: moments mu and rstd, T, w2, k and the constant of z.

    Mean of branch 2: the filters times the nine shifted sums T of the zero-padded map, which are the total less the row
    and the column that the shift moves out, with the corner that was taken off twice.
    """
    lane, inside = common.whole_groups(B * C, c, LANES)
    b = lane // C
    i = lane % c
    L = H + W
    size = H * W
    mask = inside[:, None]
    channel = (lane % C)[:, None]
    means += (b * (C * L))[:, None]
    image = x + (b.to(tl.int64) * (C * size))[:, None]
    added = tl.zeros([LANES, BP], ACC)
    for h0 in range(0, H, BP):
        h = (h0 + tl.arange(0, BP))[None, :]
        added += tl.load(means + strip_place(channel, h, C, L, LAST), mask=mask & (h < H), other=0)
    total = tl.sum(added, 1)[:, None]
    top = tl.load(means + strip_place(channel, 0, C, L, LAST), mask=mask, other=0)
    bottom = tl.load(means + strip_place(channel, H - 1, C, L, LAST), mask=mask, other=0)
    start = tl.load(means + strip_place(channel, H, C, L, LAST), mask=mask, other=0)
    end = tl.load(means + strip_place(channel, L - 1, C, L, LAST), mask=mask, other=0)
    corner_00 = tl.load(image + place(channel, 0, 0, C, H, W, LAST), mask=mask, other=0).to(ACC)
    corner_0w = tl.load(image + place(channel, 0, W - 1, C, H, W, LAST), mask=mask, other=0).to(ACC)
    corner_h0 = tl.load(image + place(channel, H - 1, 0, C, H, W, LAST), mask=mask, other=0).to(ACC)
    corner_hw = tl.load(image + place(channel, H - 1, W - 1, C, H, W, LAST), mask=mask, other=0).to(ACC)
    for tap in tl.static_range(9):
        shifted = total
        if tap // 3 == 0:
            shifted = shifted - bottom
        if tap // 3 == 2:
            shifted = shifted - top
        shifted *= W
        if tap % 3 == 0:
            shifted -= end * H
        if tap % 3 == 2:
            shifted -= start * H
        if tap == 0:
            shifted += corner_hw
        if tap == 2:
            shifted += corner_h0
        if tap == 6:
            shifted += corner_0w
        if tap == 8:
            shifted += corner_00
        tl.store(taps + lane[:, None] * 9 + tap, shifted, mask=mask)

    # The moments of the tiles, put together by Chan's formula.
    weighted = tl.zeros([LANES, BP], ACC)
    for t0 in range(0, down * across, BP):
        t = (t0 + tl.arange(0, BP))[None, :]
        loaded = mask & (t < down * across)
        count = tl.minimum(H - t // across * rows, rows) * tl.minimum(W - t % across * width, width)
        weighted += count.to(ACC) * tl.load(parts + t * 2 * B * C + lane[:, None], mask=loaded, other=0)
    mu = divide(tl.sum(weighted, 1), size.to(ACC))
    weighted = tl.zeros([LANES, BP], ACC)
    for t0 in range(0, down * across, BP):
        t = (t0 + tl.arange(0, BP))[None, :]
        loaded = mask & (t < down * across)
        count = tl.minimum(H - t // across * rows, rows) * tl.minimum(W - t % across * width, width)
        pointer = parts + t * 2 * B * C + lane[:, None]
        shift = tl.load(pointer, mask=loaded, other=0) - mu[:, None]
        deviations = tl.load(pointer + B * C, mask=loaded, other=0)
        weighted += tl.where(loaded, deviations + count.to(ACC) * shift * shift, 0)
    deviation = rsqrt(divide(tl.sum(weighted, 1), size.to(ACC)) + _EPS)
    tl.store(mean + lane, mu, mask=inside)
    tl.store(rstd + lane, deviation, mask=inside)
    tl.debug_barrier()  # T is read by other threads

    # Filters in the order of memory: number m of an output channel's belongs to number r of T.
    BM: tl.constexpr = 16
    pooled = tl.zeros([LANES, BM], ACC)
    for m0 in range(0, 9 * c, BM):
        m = (m0 + tl.arange(0, BM))[None, :]
        loaded = mask & (m < 9 * c)
        r = m // inner + m % inner * jump
        weight = tl.load(filters + i[:, None] * (9 * c) + m, mask=loaded, other=0).to(ACC)
        pooled += weight * tl.load(taps + (lane - i)[:, None] * 9 + r, mask=loaded, other=0)
    bias = common.optional(filters_bias, i, inside, HAS_FILTERS_BIAS, ACC)
    logit = divide(tl.sum(pooled, 1), size.to(ACC)) + bias
    tl.store(weight2 + lane, logit, mask=inside)
    tl.debug_barrier()  # so are these logits

    first = lane - i
    most = logit
    most_beta = tl.full([LANES], -float('inf'), ACC)
    for k0 in range(0, c, 4):
        for j in tl.static_range(4):
            k = tl.minimum(k0 + j, c - 1)
            most = tl.maximum(most, tl.load(weight2 + first + k, mask=inside, other=0))
            most_beta = tl.maximum(most_beta, common.optional(norm_bias, i * 0 + k, inside, HAS_NORM_BIAS, ACC))
    powers = tl.zeros([LANES], ACC)
    beta_powers = tl.zeros([LANES], ACC)
    of_beta = tl.zeros([LANES], ACC)
    of_bias = tl.zeros([LANES], ACC)
    for k0 in range(0, c, 4):
        for j in tl.static_range(4):
            k = i * 0 + k0 + j
            there = inside & (k < c)
            beta = common.optional(norm_bias, k, there, HAS_NORM_BIAS, ACC)
            power = tl.where(there, exp(tl.load(weight2 + first + k, mask=there, other=0) - most), 0)
            beta_power = tl.where(there, exp(beta - most_beta), 0)
            powers += power
            beta_powers += beta_power
            of_beta += power * beta
            of_bias += beta_power * common.optional(filters_bias, k, there, HAS_FILTERS_BIAS, ACC)
    tl.debug_barrier()  # all have read the logits
    w2 = divide(exp(logit - most), powers)
    gamma = tl.load(norm_weight + i, mask=inside, other=0).to(ACC)
    tl.store(weight2 + lane, w2, mask=inside)
    tl.store(scale + lane, w2 * gamma * deviation, mask=inside)
    sums = divide(of_bias, beta_powers) + divide(of_beta, powers)
    tl.store(constant + lane // c, sums, mask=inside & (i == 0))


@triton.jit(do_not_specialize=['CV', 'H', 'W', 'c', 'blocks', 'down', 'across', 'width'])
def output(
    x, gate, mean, scale, constant, stencil, logits, out, CV, H, W, c, blocks, down, across, width,
    UNIT: tl.constexpr, LAST: tl.constexpr, VEC: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, NC: tl.constexpr,
    CP: tl.constexpr, DENSE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Logits z or their gates, and x * sigmoid(z).

    A block is NC / CP groups; contiguous, one, of which CP channels come at once.
    """
    C = CV * VEC
    NG: tl.constexpr = NC // CP
    b, block, row, col = common.program(blocks, down, across, LAST)
    image = b.to(tl.int64) * (C * H * W)
    h = (row * BH + tl.arange(0, BH))[None, None, :]
    mean += b * C
    scale += b * C
    groups = C // c
    group = (block * NG + tl.arange(0, NG))[:, None, None]
    constant_ = tl.load(constant + b * groups + group, mask=group < groups, other=0)
    end = tl.minimum(col * width + width, W)
    for w0 in range(col * width, end, BW):
        w = (w0 + tl.arange(0, BW))[None, :, None]
        p = h * W + w
        z = tl.zeros([NG, BW, BH], ACC) + constant_
        for i in range(0, 1 if LAST else c, NC):
            channel, valid = common.group_channels(block, i, c, C, BW, NC, CP, DENSE, LAST)
            _, gate_h = common.load_gates(gate, b, channel, h, C, H, W, LAST)
            inside = valid & (h < H) & (w < end)
            pixel = x + image + place(channel, h, w, C, H, W, LAST)
            center = tl.load(pixel, mask=inside, other=0).to(ACC)
            gate_w = tl.load(
                gate + b * C * (H + W) + strip_place(channel, H + w, C, H + W, LAST), mask=valid & (w < end), other=0
            )
            weight = tl.load(scale + channel, mask=valid, other=0)
            y = common.gated(center, gate_h, gate_w, inside)
            added = weight * (y - tl.load(mean + channel, mask=valid, other=0))
            for tap in tl.static_range(9):
                if tap == 4:
                    value = center
                else:
                    q, shown = common.neighbour(w, p, H, W, tap)
                    at = x + image + common.pixel_place(channel, q, C, H * W, LAST)
                    if NC > 1:
                        shown = shown & valid
                    value = tl.load(at, mask=shown, other=0).to(ACC)
                added += tl.load(stencil + tap * C + channel, mask=valid, other=0) * value
            z += tl.sum(tl.reshape(added, [NG, CP, BW, BH]), 1)
        z_at = logits + b.to(tl.int64) * (groups * H * W) + place(group, h, w, groups, H, W, LAST)
        kept = common.to_keep(z, logits, UNIT)
        tl.store(z_at, kept, mask=(h < H) & (w < end) & (group < groups))
        factor = common.map_gate(kept, UNIT, ACC)
        if NC > 1:
            factor = tl.reshape(tl.broadcast_to(factor[:, None, :, :], [NG, CP, BW, BH]), [NC, BW, BH])
        for i in range(0, 1 if LAST else c, NC):
            channel, valid = common.group_channels(block, i, c, C, BW, NC, CP, DENSE, LAST)
            pixel = image + place(channel, h, w, C, H, W, LAST)
            mask = valid & (h < H) & (w < end)
            tl.store(out + pixel, tl.load(x + pixel, mask=mask, other=0).to(ACC) * factor, mask=mask)


@triton.jit
def _column(x, channel, h, w, mask, C, W):
    """Pixels (h, w); 0 outside of the map, whose rows ``mask`` knows."""
    return tl.load(x + (h * W + w) * C + channel, mask=mask & (w.to(tl.uint32) < W.to(tl.uint32)), other=0)


@triton.jit(do_not_specialize=['CV', 'H', 'W', 'c', 'blocks', 'down', 'across', 'length'])
def output_last(
    x, gate, mean, scale, constant, stencil, logits, out, CV, H, W, c, blocks, down, across, length,
    UNIT: tl.constexpr, VEC: tl.constexpr, NC: tl.constexpr, CP: tl.constexpr, DENSE: tl.constexpr, T1: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """``output`` of a channels-last map. A program walks along T1 rows; each column is read once, and a step ahead."""
    C = CV * VEC
    NG: tl.constexpr = NC // CP
    b, block, row, col = common.program(blocks, down, across, True)
    channel, valid = common.group_channels(block, 0, c, C, T1, NC, CP, DENSE, True)
    h = row * T1 + tl.arange(0, T1)[None, :, None]
    inside = valid & (h < H)
    above = valid & (h > 0) & (h <= H)
    below = valid & (h < H - 1)
    image = b.to(tl.int64) * (C * H * W)
    x += image
    out += image
    gate += b * C * (H + W)
    gate_h = tl.load(gate + h * C + channel, mask=inside, other=0)
    mu = tl.load(mean + b * C + channel, mask=valid, other=0)
    k = tl.load(scale + b * C + channel, mask=valid, other=0)
    groups = C // c
    group = (block * NG + tl.arange(0, NG))[:, None, None]
    constant_ = tl.load(constant + b * groups + group, mask=group < groups, other=0)
    logits += b.to(tl.int64) * (groups * H * W)
    f0 = tl.load(stencil + channel, mask=valid, other=0)
    f1 = tl.load(stencil + C + channel, mask=valid, other=0)
    f2 = tl.load(stencil + 2 * C + channel, mask=valid, other=0)
    f3 = tl.load(stencil + 3 * C + channel, mask=valid, other=0)
    f4 = tl.load(stencil + 4 * C + channel, mask=valid, other=0)
    f5 = tl.load(stencil + 5 * C + channel, mask=valid, other=0)
    f6 = tl.load(stencil + 6 * C + channel, mask=valid, other=0)
    f7 = tl.load(stencil + 7 * C + channel, mask=valid, other=0)
    f8 = tl.load(stencil + 8 * C + channel, mask=valid, other=0)
    start = col * length
    end = tl.minimum(start + length, W)
    # Columns left, here and next; of each the pixels in the row above, in this row and below.
    w = start + tl.zeros([1, 1, 1], tl.int32)
    left0 = _column(x, channel, h - 1, w - 1, above, C, W).to(ACC)
    left1 = _column(x, channel, h, w - 1, inside, C, W).to(ACC)
    left2 = _column(x, channel, h + 1, w - 1, below, C, W).to(ACC)
    here0 = _column(x, channel, h - 1, w, above, C, W).to(ACC)
    here1 = _column(x, channel, h, w, inside, C, W).to(ACC)
    here2 = _column(x, channel, h + 1, w, below, C, W).to(ACC)
    next0 = _column(x, channel, h - 1, w + 1, above, C, W)
    next1 = _column(x, channel, h, w + 1, inside, C, W)
    next2 = _column(x, channel, h + 1, w + 1, below, C, W)
    for i in range(start, end):
        w = i + tl.zeros([1, 1, 1], tl.int32)
        right0, right1, right2 = next0.to(ACC), next1.to(ACC), next2.to(ACC)
        next0 = _column(x, channel, h - 1, w + 2, above, C, W)
        next1 = _column(x, channel, h, w + 2, inside, C, W)
        next2 = _column(x, channel, h + 1, w + 2, below, C, W)
        gate_w = tl.load(gate + (H + i) * C + channel, mask=valid, other=0)
        added = k * (common.gated(here1, gate_h, gate_w, inside) - mu)
        added += f0 * left0
        added += f1 * here0
        added += f2 * right0
        added += f3 * left1
        added += f4 * here1
        added += f5 * right1
        added += f6 * left2
        added += f7 * here2
        added += f8 * right2
        z = tl.sum(tl.reshape(added, [NG, CP, T1, 1]), 1) + constant_
        kept = common.to_keep(z, logits, UNIT)
        tl.store(logits + (h * W + i) * groups + group, kept, mask=(h < H) & (group < groups))
        factor = tl.broadcast_to(common.map_gate(kept, UNIT, ACC)[:, None, :, :], [NG, CP, T1, 1])
        tl.store(out + (h * W + i) * C + channel, here1 * tl.reshape(factor, [NC, T1, 1]), mask=inside)
        left0, left1, left2 = here0, here1, here2
        here0, here1, here2 = right0, right1, right2
