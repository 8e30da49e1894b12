"""The kernels of EMA's backward pass for maps and strips; ``triton_common`` says what all have in common.

With dy = k q, q = dz - d0 - e (y - mu), d0 the mean of dz and e = rstd^2 mean(dz (y - mu)): what is summed is centred.
"""

import triton
import triton.language as tl

from ..triton_math import divide, place, sigmoid_slope, strip_place
from . import triton_common as common


@triton.jit(do_not_specialize=['B', 'CV', 'H', 'W', 'c', 'blocks', 'down', 'across', 'width'])
def logit_grad(
    grad, x, logits, gate, mean, dz, totals, centred, B, CV, H, W, c, blocks, down, across, width,
    UNIT: tl.constexpr, LAST: tl.constexpr, VEC: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, NC: tl.constexpr,
    CP: tl.constexpr, DENSE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dz, the gradient of the logits; its sums by tiles (tiles, B, G), and those of dz (y - mu) (tiles, B, C)."""
    C = CV * VEC
    NG: tl.constexpr = NC // CP
    b, block, row, col = common.program(blocks, down, across, LAST)
    image = b.to(tl.int64) * (C * H * W)
    x += image
    grad += image
    h = (row * BH + tl.arange(0, BH))[None, None, :]
    mean += b * C
    groups = C // c
    group = (block * NG + tl.arange(0, NG))[:, None, None]
    map_ = b.to(tl.int64) * (groups * H * W)
    logits += map_
    dz += map_
    tile = row * across + col
    end = tl.minimum(col * width + width, W)
    total = tl.zeros([NG, BW], ACC)
    product_sum = tl.zeros([NC, BW], ACC)
    for w0 in range(col * width, end, BW):
        w = (w0 + tl.arange(0, BW))[None, :, None]
        product = tl.zeros([NC, BW, BH], ACC)
        channel, valid = common.group_channels(block, 0, c, C, BW, NC, CP, DENSE, LAST)
        inside = valid & (h < H) & (w < end)
        value = product
        for i in range(0, 1 if LAST else c, NC):
            channel, valid = common.group_channels(block, i, c, C, BW, NC, CP, DENSE, LAST)
            inside = valid & (h < H) & (w < end)
            at = place(channel, h, w, C, H, W, LAST)
            value = tl.load(x + at, mask=inside, other=0).to(ACC)
            product += value * tl.load(grad + at, mask=inside, other=0).to(ACC)
        slope = tl.sum(tl.reshape(product, [NG, CP, BW, BH]), 1)
        here = (h < H) & (w < end) & (group < groups)
        at = place(group, h, w, groups, H, W, LAST)
        factor = common.map_gate(tl.load(logits + at, mask=here, other=0), UNIT, ACC)
        slope *= sigmoid_slope(factor, UNIT)
        tl.store(dz + at, slope, mask=here)
        total += tl.sum(slope, 2)
        if LAST:
            _, gate_h = common.load_gates(gate, b, channel, h, C, H, W, LAST)
            product_sum += tl.sum(
                tl.reshape(tl.broadcast_to(slope[:, None, :, :], [NG, CP, BW, BH]), [NC, BW, BH])
                * _centred(value, gate, mean, gate_h, b, channel, w, inside, valid & (w < end), valid, C, H, W, LAST),
                2,
            )
    group = block * NG + tl.arange(0, NG)
    tl.store(totals + (tile * B + b) * groups + group, tl.sum(total, 1), mask=group < groups)
    if LAST:
        channel, valid = common.group_channels(block, 0, c, C, 1, NC, CP, DENSE, LAST)
        to = centred + (tile * B + b) * C + channel
        tl.store(to, tl.sum(product_sum, 1)[:, None, None], mask=valid)
    else:
        # Channel by channel, so that each needs one sum.
        tl.debug_barrier()  # dz is read by other threads
        for i in range(0, c, NC):
            channel, valid = common.group_channels(block, i, c, C, BW, NC, CP, DENSE, LAST)
            _, gate_h = common.load_gates(gate, b, channel, h, C, H, W, LAST)
            product_sum = tl.zeros([NC, BW], ACC)
            for w0 in range(col * width, end, BW):
                w = (w0 + tl.arange(0, BW))[None, :, None]
                here = (h < H) & (w < end)
                inside = here & valid
                value = tl.load(x + place(channel, h, w, C, H, W, LAST), mask=inside, other=0).to(ACC)
                slope = tl.load(dz + place(block, h, w, groups, H, W, LAST), mask=here, other=0)
                y = _centred(value, gate, mean, gate_h, b, channel, w, inside, valid & (w < end), valid, C, H, W, LAST)
                product_sum += tl.sum(slope * y, 2)
            lane = i + tl.arange(0, NC)
            to = centred + (tile * B + b) * C + block * c + lane
            tl.store(to, tl.sum(product_sum, 1), mask=lane < c)


@triton.jit
def _centred(value, gate, mean, gate_h, b, channel, w, inside, in_row, valid, C, H, W, LAST: tl.constexpr):
    """y - mu inside, some number outside."""
    strips = gate + b * C * (H + W)
    gate_w = tl.load(strips + strip_place(channel, H + w, C, H + W, LAST), mask=in_row, other=0)
    return common.gated(value, gate_h, gate_w, inside) - tl.load(mean + channel, mask=valid, other=0)


@triton.jit(do_not_specialize=['B', 'C', 'H', 'W', 'c', 'tiles', 'inner', 'jump'])
def norm_grad(
    totals, centred, rstd, weight2, filters, norm_weight, norm_bias, d0, slope, spread, numbers,
    B, C, H, W, c, tiles, inner, jump,
    HAS_NORM_BIAS: tl.constexpr, LANES: tl.constexpr, BP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """For as many groups as a program holds: d0, e, the gradient of T (9 a channel), and what parameters take from it.

    The last are gradients of branch 2 pooled (B, C), and parts of those of gamma and of beta.
    """
    lane, inside = common.whole_groups(B * C, c, LANES)
    i = lane % c
    n = lane // c
    count = B * (C // c)
    size = (H * W).to(ACC)
    added = tl.zeros([LANES, BP], ACC)
    many = tl.zeros([LANES, BP], ACC)
    for t0 in range(0, tiles, BP):
        t = (t0 + tl.arange(0, BP))[None, :]
        mask = inside[:, None] & (t < tiles)
        added += tl.load(totals + t * count + n[:, None], mask=mask, other=0)
        many += tl.load(centred + t * (B * C) + lane[:, None], mask=mask, other=0)
    total = tl.sum(added, 1)
    deviation = tl.load(rstd + lane, mask=inside, other=0)
    product = tl.sum(many, 1) * deviation
    w2 = tl.load(weight2 + lane, mask=inside, other=0)
    gamma = tl.load(norm_weight + i, mask=inside, other=0).to(ACC)
    dw2 = gamma * product + common.optional(norm_bias, i, inside, HAS_NORM_BIAS, ACC) * total
    tl.store(numbers + lane, w2 * dw2, mask=inside)
    tl.store(numbers + B * C + lane, w2 * product, mask=inside)
    tl.store(numbers + 2 * B * C + lane, w2 * total, mask=inside)
    tl.store(d0 + lane, divide(total, size), mask=inside)
    tl.store(slope + lane, divide(deviation * product, size), mask=inside)
    tl.debug_barrier()  # products are read by other threads
    mean = tl.zeros([LANES], ACC)
    for k0 in range(0, c, 4):
        for j in tl.static_range(4):
            mean += tl.load(numbers + lane - i + k0 + j, mask=inside & (k0 + j < c), other=0)
    tl.debug_barrier()  # all have read them
    tl.store(numbers + lane, w2 * (dw2 - mean), mask=inside)
    tl.debug_barrier()  # so is the gradient of branch 2 pooled

    # Filters in the order of memory, as in ``norm``.
    BLOCK: tl.constexpr = 512
    groups = LANES // c
    for q0 in range(0, groups * 9 * c, BLOCK):
        q = q0 + tl.arange(0, BLOCK)
        m = q % (9 * c)
        first = tl.program_id(0) * groups * c + q // (9 * c) * c
        loaded = (q < groups * 9 * c) & (first < B * C)
        dtap = tl.zeros([BLOCK], ACC)
        for k0 in range(0, c, 4):
            for j in tl.static_range(4):
                mask = loaded & (k0 + j < c)
                weight = tl.load(filters + (k0 + j) * (9 * c) + m, mask=mask, other=0).to(ACC)
                dtap += weight * tl.load(numbers + first + k0 + j, mask=mask, other=0)
        tl.store(spread + first * 9 + m // inner + m % inner * jump, divide(dtap, size), mask=loaded)


@triton.jit(do_not_specialize=['B', 'CV', 'H', 'W', 'c', 'blocks', 'down', 'across', 'width'])
def gate_sums(
    x, dz, gate, mean, d0, slope, by_row, by_col, B, CV, H, W, c, blocks, down, across, width,
    LAST: tl.constexpr, VEC: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, NC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of the gates, but for k: sums of q x a_w along rows, in parts as those of x, and of q x a_h."""
    C = CV * VEC
    b, block, row, col = common.program(blocks, down, across, LAST)
    lane = block * NC + tl.arange(0, NC)
    channel = common.spread_channels(lane, BW)
    h = (row * BH + tl.arange(0, BH))[None, None, :]
    image = x + b.to(tl.int64) * (C * H * W)
    gate, gate_h = common.load_gates(gate, b, channel, h, C, H, W, LAST)
    groups = C // c
    dz += b.to(tl.int64) * (groups * H * W)
    mu = tl.load(mean + b * C + channel, mask=channel < C, other=0)
    d0_ = tl.load(d0 + b * C + channel, mask=channel < C, other=0)
    e = tl.load(slope + b * C + channel, mask=channel < C, other=0)
    along = tl.zeros([NC, BW, BH], ACC)
    end = tl.minimum(col * width + width, W)
    for w0 in range(col * width, end, BW):
        w = (w0 + tl.arange(0, BW))[None, :, None]
        in_row = (w < end) & (channel < C)
        inside = in_row & (h < H)
        value = tl.load(image + place(channel, h, w, C, H, W, LAST), mask=inside, other=0).to(ACC)
        dz_ = tl.load(dz + place(channel // c, h, w, groups, H, W, LAST), mask=inside, other=0)
        gate_w = tl.load(gate + strip_place(channel, H + w, C, H + W, LAST), mask=in_row, other=0)
        q = (dz_ - d0_ - e * (common.gated(value, gate_h, gate_w, inside) - mu)) * value
        along += q * gate_w
        to = (row * B + b) * (C * W) + strip_place(channel, w, C, W, LAST)
        tl.store(by_col + to, tl.sum(q * gate_h, 2)[:, :, None], mask=in_row)
    lane = lane[:, None]
    h = row * BH + tl.arange(0, BH)[None, :]
    to = (col * B + b) * (C * H) + strip_place(lane, h, C, H, LAST)
    tl.store(by_row + to, tl.sum(along, 1), mask=(h < H) & (lane < C))


@triton.jit(do_not_specialize=['B', 'C', 'H', 'W', 'c', 'steps', 'rows'])
def strip_grad(
    by_row, by_col, gate, scale, mix, spread, dlogits, dstrips, B, C, H, W, c, steps, rows,
    LAST: tl.constexpr, BLOCK: tl.constexpr, AT_ONCE: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of the logits of the strip gates, and what is added to the gradient of x along each strip."""
    L = H + W
    b, g, i, p, exists, at = common.strip_element(c, C // c, L, LAST, BLOCK)
    inside = exists & (b < B)
    channel = b * C + g * c + i
    total = common.strip_total(
        by_row, by_col, b, g * c + i, p, inside, B, C, H, W, steps, rows, LAST, AT_ONCE, tl.zeros([BLOCK], ACC)
    )
    a = tl.load(gate + at, mask=inside, other=0)
    dlogit = total * tl.load(scale + channel, mask=inside, other=0) * sigmoid_slope(a, False)
    tl.store(dlogits + at, dlogit, mask=inside)
    tl.debug_barrier()  # those of a group are read by other threads
    step = 1 if LAST else L
    first = dlogits + at - i * step
    dmean = tl.zeros([BLOCK], ACC)
    for k0 in range(0, c, 4):
        for j in tl.static_range(4):
            loaded = inside & (k0 + j < c)
            weight = tl.load(mix + (k0 + j) * c + i, mask=loaded, other=0).to(ACC)
            dmean += weight * tl.load(first + (k0 + j) * step, mask=loaded, other=0)
    added = divide(dmean, tl.where(p < H, W, H).to(ACC))
    # T taken apart again: all of its gradient everywhere, less that of the taps that do not see the strip.
    for tap in tl.static_range(9):
        dtap = tl.load(spread + channel * 9 + tap, mask=inside, other=0)
        added += tl.where(p < H, dtap, 0)
        if tap // 3 == 0:
            added -= tl.where(p == H - 1, dtap, 0)
        if tap // 3 == 2:
            added -= tl.where(p == 0, dtap, 0)
        if tap % 3 == 0:
            added -= tl.where(p == L - 1, dtap, 0)
        if tap % 3 == 2:
            added -= tl.where(p == H, dtap, 0)
    tl.store(dstrips + at, added, mask=inside)


@triton.jit
def _for_channels(first, second, NC: tl.constexpr, SHARED: tl.constexpr):
    """Numbers of groups for all their channels: of the groups of each vector's first and second half."""
    V: tl.constexpr = first.shape[0]
    T1: tl.constexpr = first.shape[1]
    T2: tl.constexpr = first.shape[2]
    if SHARED == 1:
        return first
    elif SHARED == 4:
        return tl.reshape(tl.broadcast_to(first[:, None, :, :], [V, 4, T1, T2]), [NC, T1, T2])
    else:
        both = tl.permute(tl.join(first, second), [0, 3, 1, 2])
        return tl.reshape(tl.broadcast_to(both[:, :, None, :, :], [V, 2, 2, T1, T2]), [NC, T1, T2])


@triton.jit
def _of_groups(
    map_, first, second, s, t, mask, groups, H, W, LAST: tl.constexpr, NC: tl.constexpr, SHARED: tl.constexpr
):  # fmt: skip
    """Numbers of a map with one a group, for channels; 0 outside of the map."""
    S = W if LAST else H
    T = H if LAST else W
    mask = mask & (t.to(tl.uint32) < T.to(tl.uint32)) & (s.to(tl.uint32) < S.to(tl.uint32))
    found = tl.load(map_ + common.walk_place(first, s, t, groups, H, W, LAST), mask=mask, other=0)
    other = found
    if SHARED == 2:
        other = tl.load(map_ + common.walk_place(second, s, t, groups, H, W, LAST), mask=mask, other=0)
    return _for_channels(found, other, NC, SHARED)


@triton.jit
def _weight(stencil, channel, C, DS: tl.constexpr, DT: tl.constexpr, LAST: tl.constexpr):
    """That of the tap of a neighbour's window which sees this pixel."""
    TAP: tl.constexpr = 4 - (3 * DT + DS if LAST else 3 * DS + DT)
    return tl.load(stencil + TAP * C + channel, mask=channel < C, other=0)


@triton.jit
def _tap(shifted, value, result, added, weight):
    """Adds what dz of a neighbour takes back to dx, and to the sums of x times the shifted dz."""
    result += weight * shifted
    added += tl.sum(value * shifted, 2)
    return result, added


@triton.jit
def _store_tap(added, to, step, lane, C, DS: tl.constexpr, DT: tl.constexpr, LAST: tl.constexpr):
    TAP: tl.constexpr = 4 - (3 * DT + DS if LAST else 3 * DS + DT)
    tl.store(to + TAP * step, tl.sum(added, 1), mask=lane < C)


@triton.jit(do_not_specialize=['B', 'CV', 'H', 'W', 'c', 'blocks', 'down', 'across', 'length'])
def input_grad(
    grad, x, logits, dz, gate, mean, scale, d0, slope, stencil, spread, dstrips, out, tap_sums,
    B, CV, H, W, c, blocks, down, across, length,
    UNIT: tl.constexpr, LAST: tl.constexpr, VEC: tl.constexpr, NC: tl.constexpr, T1: tl.constexpr, T2: tl.constexpr,
    SHARED: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The gradient of x, and sums of x times each of the nine shifts of dz, by tiles (9, tiles, B, C).

    A program walks s (along a row if channels-last, else down) with T1 * T2 pixels t across: of the nine neighbours,
    it reads three in each step and has the others. ``SHARED`` says how many channels of a vector of four surely are of
    one group, so that dz is read once for them.
    """
    C = CV * VEC
    SHARED_VEC: tl.constexpr = 1 if SHARED == 1 else 4
    b, block, row, col = common.program(blocks, down, across, LAST)
    lane = block * NC + tl.arange(0, NC)
    channel = common.spread_channels(lane, T1)
    valid = channel < C
    S = W if LAST else H
    T = H if LAST else W
    t = (row if LAST else col) * (T1 * T2) + tl.arange(0, T1)[None, :, None] + T1 * tl.arange(0, T2)[None, None, :]
    start = (col if LAST else row) * length
    end = tl.minimum(start + length, S)
    inside = valid & (t < T)
    image = b.to(tl.int64) * (C * H * W)
    groups = C // c
    map_ = b.to(tl.int64) * (groups * H * W)
    dz += map_
    logits += map_
    grad += image
    x += image
    out += image
    # Strips: those across, and where those along the walk start.
    gate += b * C * (H + W)
    dstrips += b * C * (H + W)
    at_cross = strip_place(channel, t if LAST else H + t, C, H + W, LAST)
    gate_t = tl.load(gate + at_cross, mask=inside, other=0)
    dstrip_t = tl.load(dstrips + at_cross, mask=inside, other=0)
    vector = block * (NC // SHARED_VEC) + tl.arange(0, NC // SHARED_VEC)
    first = common.spread_channels(vector * SHARED_VEC // c, T1)
    second = common.spread_channels((vector * SHARED_VEC + SHARED_VEC // 2) // c, T1)
    known = common.spread_channels(vector * SHARED_VEC, T1) < C
    number = b * C + channel
    mu = tl.load(mean + number, mask=valid, other=0)
    k = tl.load(scale + number, mask=valid, other=0)
    d0_ = tl.load(d0 + number, mask=valid, other=0)
    e = tl.load(slope + number, mask=valid, other=0)
    f0 = tl.zeros([NC, T1], ACC)
    f1, f2, f3, f4, f5, f6, f7, f8 = f0, f0, f0, f0, f0, f0, f0, f0
    weight0 = _weight(stencil, channel, C, -1, -1, LAST)
    weight1 = _weight(stencil, channel, C, -1, 0, LAST)
    weight2 = _weight(stencil, channel, C, -1, 1, LAST)
    weight3 = _weight(stencil, channel, C, 0, -1, LAST)
    weight4 = _weight(stencil, channel, C, 0, 0, LAST)
    weight5 = _weight(stencil, channel, C, 0, 1, LAST)
    weight6 = _weight(stencil, channel, C, 1, -1, LAST)
    weight7 = _weight(stencil, channel, C, 1, 0, LAST)
    weight8 = _weight(stencil, channel, C, 1, 1, LAST)
    # dz behind, here and ahead, each of three pixels across.
    s = start + tl.zeros([1, 1, 1], tl.int32)
    behind0 = _of_groups(dz, first, second, s - 1, t - 1, known, groups, H, W, LAST, NC, SHARED)
    behind1 = _of_groups(dz, first, second, s - 1, t, known, groups, H, W, LAST, NC, SHARED)
    behind2 = _of_groups(dz, first, second, s - 1, t + 1, known, groups, H, W, LAST, NC, SHARED)
    here0 = _of_groups(dz, first, second, s, t - 1, known, groups, H, W, LAST, NC, SHARED)
    here1 = _of_groups(dz, first, second, s, t, known, groups, H, W, LAST, NC, SHARED)
    here2 = _of_groups(dz, first, second, s, t + 1, known, groups, H, W, LAST, NC, SHARED)
    pixel = common.walk_place(channel, s, t, C, H, W, LAST)
    step = C if LAST else W
    # Maps are read one step ahead.
    next_value = tl.load(x + pixel, mask=inside, other=0)
    next_grad = tl.load(grad + pixel, mask=inside, other=0)
    for i in range(start, end):
        value = next_value.to(ACC)
        grad_ = next_grad.to(ACC)
        ahead = inside & (i + 1 < end)
        next_value = tl.load(x + pixel + step, mask=ahead, other=0)
        next_grad = tl.load(grad + pixel + step, mask=ahead, other=0)
        s = i + tl.zeros([1, 1, 1], tl.int32)
        ahead0 = _of_groups(dz, first, second, s + 1, t - 1, known, groups, H, W, LAST, NC, SHARED)
        ahead1 = _of_groups(dz, first, second, s + 1, t, known, groups, H, W, LAST, NC, SHARED)
        ahead2 = _of_groups(dz, first, second, s + 1, t + 1, known, groups, H, W, LAST, NC, SHARED)
        at_along = strip_place(channel, H + i if LAST else i, C, H + W, LAST)
        gate_s = tl.load(gate + at_along, mask=valid, other=0)
        y = common.gated(value, gate_t, gate_s, inside)
        result = gate_t * gate_s * (k * (here1 - d0_ - e * (y - mu)))
        result += dstrip_t + tl.load(dstrips + at_along, mask=valid, other=0)
        here = known & (t < T)
        at = common.walk_place(first, s, t, groups, H, W, LAST)
        factor = common.map_gate(tl.load(logits + at, mask=here, other=0), UNIT, ACC)
        factor_second = factor
        if SHARED == 2:
            at = common.walk_place(second, s, t, groups, H, W, LAST)
            factor_second = common.map_gate(tl.load(logits + at, mask=here, other=0), UNIT, ACC)
        result += _for_channels(factor, factor_second, NC, SHARED) * grad_
        result, f0 = _tap(behind0, value, result, f0, weight0)
        result, f1 = _tap(behind1, value, result, f1, weight1)
        result, f2 = _tap(behind2, value, result, f2, weight2)
        result, f3 = _tap(here0, value, result, f3, weight3)
        result, f4 = _tap(here1, value, result, f4, weight4)
        result, f5 = _tap(here2, value, result, f5, weight5)
        result, f6 = _tap(ahead0, value, result, f6, weight6)
        result, f7 = _tap(ahead1, value, result, f7, weight7)
        result, f8 = _tap(ahead2, value, result, f8, weight8)
        # The corners, of which row and column took off the same tap.
        if i == 0:
            result += tl.where(t == 0, tl.load(spread + number * 9 + 8, mask=valid, other=0), 0)
            result += tl.where(t == T - 1, tl.load(spread + number * 9 + (2 if LAST else 6), mask=valid, other=0), 0)
        if i == S - 1:
            result += tl.where(t == 0, tl.load(spread + number * 9 + (6 if LAST else 2), mask=valid, other=0), 0)
            result += tl.where(t == T - 1, tl.load(spread + number * 9, mask=valid, other=0), 0)
        tl.store(out + pixel, result, mask=inside)
        pixel += step
        behind0, behind1, behind2 = here0, here1, here2
        here0, here1, here2 = ahead0, ahead1, ahead2

    size = down * across * B * C
    to = tap_sums + ((row * across + col) * B + b) * C + lane
    _store_tap(f0, to, size, lane, C, -1, -1, LAST)
    _store_tap(f1, to, size, lane, C, -1, 0, LAST)
    _store_tap(f2, to, size, lane, C, -1, 1, LAST)
    _store_tap(f3, to, size, lane, C, 0, -1, LAST)
    _store_tap(f4, to, size, lane, C, 0, 0, LAST)
    _store_tap(f5, to, size, lane, C, 0, 1, LAST)
    _store_tap(f6, to, size, lane, C, 1, -1, LAST)
    _store_tap(f7, to, size, lane, C, 1, 0, LAST)
    _store_tap(f8, to, size, lane, C, 1, 1, LAST)
