"""The gradients of EMA's parameters: sums over all groups of all images, in two levels that any launch repeats exactly.

What is summed, each over its own index:

- over groups: dm T (c, 9c), with dm the gradient of branch 2 pooled; dm; parts of the gradients of gamma and beta.
- over positions of strips: gradients of their logits times strip means (c, c), and the first alone.
- over tiles: x times shifts of dz (9c), which are dF.

The sum of dz is that of the parts of the gradient of beta over channels, whose weights w2 add up to 1.
"""

import triton
import triton.language as tl

from ..triton_math import divide, exp
from . import triton_common as common


@triton.jit
def _store_sums(
    total, alone, o, r, to, to_alone, c, columns, outer, rest, BK: tl.constexpr, CO: tl.constexpr, CP: tl.constexpr
):  # fmt: skip
    """Sums over the rows of a program: of products (c, columns) at ``to``, of the first factor at ``to_alone``."""
    total = tl.sum(tl.reshape(total, [BK, CO, CP]), 0)
    o_ = (o + tl.arange(0, CO))[:, None]
    r_ = (r + tl.arange(0, CP))[None, :]
    tl.store(to + o_ * columns + r_, total, mask=outer & (o_ < c) & (r_ < columns))
    alone = tl.sum(tl.sum(tl.reshape(alone, [BK, CO, CP]), 0), 1)
    o = o + tl.arange(0, CO)
    tl.store(to_alone + o * rest, alone, mask=(o < c) & (r == 0))


@triton.jit(do_not_specialize=[
    'B', 'C', 'L', 'c', 'tiles', 'group_chunk', 'strip_chunk', 'tile_chunk', 'group_chunks', 'strip_chunks',
    'tile_chunks',
])  # fmt: skip
def parameter_sums(
    dlogits, means, taps, numbers, tap_sums, sums,
    B, C, L, c, tiles, group_chunk, strip_chunk, tile_chunk, group_chunks, strip_chunks, tile_chunks,
    LAST: tl.constexpr, CP: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Sums over a chunk of rows, for blocks of CP by CP numbers: (chunks, numbers), one kind after the other.

    A thread has a row and a column, and up to four of the numbers that are multiplied with it. Where there is nothing
    to multiply, each column has rows of its own.
    """
    CO: tl.constexpr = CP // 4 if CP > 4 else 1
    MANY: tl.constexpr = CP // CO
    by_group = 9 * c * c + 3 * c
    by_strip = c * c + c
    down = tl.cdiv(c, CP)
    across = tl.cdiv(9 * c, CP)
    group_blocks = down * (across + 2)
    strip_blocks = down * down
    strip_sums = sums + group_chunks * by_group
    count = B * (C // c)
    pid = tl.program_id(0)
    u, v, to, to_alone = numbers, taps, sums, sums
    outer = True
    period, period_step, row_step, column_step, v_step = 1, c, 0, 1, 9 * c
    columns, rest, r0 = 9 * c, 1, 0
    if pid < group_chunks * group_blocks:
        chunk = pid // group_blocks
        block = pid % group_blocks
        start = chunk * group_chunk
        end = tl.minimum(start + group_chunk, count)
        kind = block // down - across
        outer = kind < 0
        o0 = block % down * CP
        r0 = tl.where(outer, block // down * CP, 0)
        u += tl.maximum(kind + 1, 0) * (B * C)
        to += chunk * by_group
        to_alone += chunk * by_group + 9 * c * c + tl.maximum(kind + 1, 0) * c
    elif pid < group_chunks * group_blocks + strip_chunks * strip_blocks:
        pid -= group_chunks * group_blocks
        chunk = pid // strip_blocks
        start = chunk * strip_chunk
        end = tl.minimum(start + strip_chunk, count * L)
        o0 = pid % strip_blocks % down * CP
        r0 = pid % strip_blocks // down * CP
        u, v = dlogits, means
        if not LAST:
            period, period_step, row_step, column_step = L, c * L, 1, L
        v_step = period_step
        columns = c
        to = strip_sums + chunk * by_strip
        to_alone = to + c * c
    else:
        pid -= group_chunks * group_blocks + strip_chunks * strip_blocks
        chunk = pid // (9 * down)
        start = chunk * tile_chunk
        end = tl.minimum(start + tile_chunk, count * tiles)
        outer = False
        tap = pid % (9 * down) // down
        o0 = pid % down * CP
        u = tap_sums + tap * tiles * (B * C)
        to_alone = strip_sums + strip_chunks * by_strip + chunk * 9 * c + tap
        rest = 9
    lane = tl.arange(0, BK * CO * CP)
    i = lane % CP
    o = o0 + lane // CP % CO
    k = lane // (CO * CP)
    r = r0 + i
    k = tl.where(outer, k, k * CP + i)
    times_columns = outer & (r < columns)
    total0 = tl.zeros([BK * CO * CP], ACC)
    total1, total2, total3 = total0, total0, total0
    alone0, alone1, alone2, alone3 = total0, total0, total0, total0
    for k0 in range(start, end, tl.where(outer, BK, BK * CP)):
        row = k0 + k
        inside = row < end
        if LAST:
            at = u + row * c
            other = v + row * v_step
        else:
            at = u + row // period * period_step + row % period * row_step
            other = v + row // period * v_step + row % period * row_step
        factor = tl.load(other + r * column_step, mask=inside & times_columns, other=0)
        value = tl.load(at + o * column_step, mask=inside & (o < c), other=0)
        total0 += value * factor
        alone0 += value
        if MANY >= 2:
            value = tl.load(at + (o + CO) * column_step, mask=inside & (o + CO < c), other=0)
            total1 += value * factor
            alone1 += value
        if MANY == 4:
            value = tl.load(at + (o + 2 * CO) * column_step, mask=inside & (o + 2 * CO < c), other=0)
            total2 += value * factor
            alone2 += value
            value = tl.load(at + (o + 3 * CO) * column_step, mask=inside & (o + 3 * CO < c), other=0)
            total3 += value * factor
            alone3 += value
    once = (i == 0) | (outer == 0)
    _store_sums(
        total0, tl.where(once, alone0, 0), o0, r0, to, to_alone, c, columns, outer, rest, BK, CO, CP
    )  # fmt: skip
    if MANY >= 2:
        _store_sums(
            total1, tl.where(once, alone1, 0), o0 + CO, r0, to, to_alone, c, columns, outer, rest, BK, CO, CP
        )  # fmt: skip
    if MANY == 4:
        _store_sums(
            total2, tl.where(once, alone2, 0), o0 + 2 * CO, r0, to, to_alone, c, columns, outer, rest, BK, CO, CP
        )  # fmt: skip
        _store_sums(
            total3, tl.where(once, alone3, 0), o0 + 3 * CO, r0, to, to_alone, c, columns, outer, rest, BK, CO, CP
        )  # fmt: skip


@triton.jit
def _add(sums, j, mask, chunks, size, BK: tl.constexpr, BJ: tl.constexpr, ACC: tl.constexpr):
    """Numbers j of ``size``, summed over chunks."""
    total = tl.zeros([BK, BJ], ACC)
    chunks = tl.where(tl.max(mask.to(tl.int32), 0) > 0, chunks, 0)
    for k0 in range(0, chunks, BK):
        k = (k0 + tl.arange(0, BK))[:, None]
        total += tl.load(sums + k * size + j[None, :], mask=mask[None, :] & (k < chunks), other=0)
    return tl.sum(total, 0)


@triton.jit
def _dz_sum(sums, c, chunks, by_group, MOST: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr):
    channel = tl.arange(0, MOST)
    return tl.sum(_add(sums, 9 * c * c + 2 * c + channel, channel < c, chunks, by_group, BK, MOST, ACC), 0)


@triton.jit(do_not_specialize=[
    'H', 'W', 'c', 'group_chunks', 'strip_chunks', 'tile_chunks', 'stride_o', 'stride_i', 'stride_tap',
])  # fmt: skip
def parameter_grad(
    sums, filters, filters_bias, norm_bias, scratch, out,
    H, W, c, group_chunks, strip_chunks, tile_chunks, stride_o, stride_i, stride_tap,
    HAS_NORM_BIAS: tl.constexpr, HAS_FILTERS_BIAS: tl.constexpr, MOST: tl.constexpr, BK: tl.constexpr,
    BJ: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The gradients, in the order of ``arguments.flatten``; the first program has that of beta.

    With w1 the softmax of beta: that of the 3x3 filters is w1 dF + dm T / (H W), that of their bias w1 sum(dz) + dm.
    """
    by_group = 9 * c * c + 3 * c
    by_strip = c * c + c
    by_strip_sums = sums + group_chunks * by_group
    by_tile_sums = by_strip_sums + strip_chunks * by_strip
    beta_start = c * c + 2 * c
    filters_start = beta_start + c
    bias_start = filters_start + 9 * c * c
    every = tl.arange(0, MOST)
    real = every < c
    beta = common.optional(norm_bias, every, real, HAS_NORM_BIAS, ACC)
    if tl.program_id(0) == 0:
        for r0 in range(0, 9 * c, BJ):
            one = r0 + tl.arange(0, BJ)
            dfilter = _add(by_tile_sums, one, one < 9 * c, tile_chunks, 9 * c, BK, BJ, ACC)
            tl.store(scratch + one, dfilter, mask=one < 9 * c)
        tl.debug_barrier()  # read by other threads
        total = _dz_sum(sums, c, group_chunks, by_group, MOST, BK, ACC)
        for o0 in range(0, c, BK):
            row = o0 + tl.arange(0, BK)
            many = tl.zeros([BK, BJ], ACC)
            for r0 in range(0, 9 * c, BJ):
                some = (r0 + tl.arange(0, BJ))[None, :]
                weight = tl.load(
                    filters + row[:, None] * stride_o + some // 9 * stride_i + some % 9 * stride_tap,
                    mask=(row < c)[:, None] & (some < 9 * c),
                    other=0,
                )
                many += weight.to(ACC) * tl.load(scratch + some, mask=some < 9 * c, other=0)
            dw1 = tl.sum(many, 1) + total * common.optional(filters_bias, row, row < c, HAS_FILTERS_BIAS, ACC)
            tl.store(scratch + 9 * c + row, dw1, mask=row < c)
        for o0 in range(0, c, BJ):
            one = o0 + tl.arange(0, BJ)
            part = _add(sums, 9 * c * c + 2 * c + one, one < c, group_chunks, by_group, BK, BJ, ACC)
            tl.store(scratch + 10 * c + one, part, mask=one < c)
        tl.debug_barrier()  # so are these
        every_w1 = common.softmax(beta, real)
        every_dw1 = tl.load(scratch + 9 * c + every, mask=real, other=0)
        dbeta = every_w1 * (every_dw1 - tl.sum(every_w1 * every_dw1, 0))
        dbeta += tl.load(scratch + 10 * c + every, mask=real, other=0)
        tl.store(out + beta_start + every, dbeta, mask=real)
    else:
        j = (tl.program_id(0) - 1) * BJ + tl.arange(0, BJ)
        in_filters = (j >= filters_start) & (j < bias_start)
        in_bias = (j >= bias_start) & (j < bias_start + c)
        in_scale = (j >= by_strip) & (j < beta_start)
        r = j - filters_start
        source = tl.where(in_filters, r, tl.where(in_bias, r, 9 * c * c + c + j - by_strip))
        first = _add(sums, source, in_filters | in_bias | in_scale, group_chunks, by_group, BK, BJ, ACC)
        first = tl.where(in_filters, divide(first, (H * W).to(ACC)), first)
        first += _add(by_strip_sums, j, j < by_strip, strip_chunks, by_strip, BK, BJ, ACC)
        second = _add(by_tile_sums, r % (9 * c), in_filters, tile_chunks, 9 * c, BK, BJ, ACC)
        if tl.max(in_bias.to(tl.int32), 0) > 0:
            second += tl.where(in_bias, _dz_sum(sums, c, group_chunks, by_group, MOST, BK, ACC), 0)
        o = tl.where(in_filters, r // (9 * c), r - 9 * c * c)
        own = common.optional(norm_bias, o, in_filters | in_bias, HAS_NORM_BIAS, ACC)
        most = tl.max(tl.where(real, beta, -float('inf')), 0)
        powers = tl.sum(tl.where(real, exp(beta - most), 0.0), 0)
        w1 = divide(exp(own - most), powers)
        target = tl.where(
            in_filters, filters_start + o * stride_o + r % (9 * c) // 9 * stride_i + r % 9 * stride_tap, j
        )
        written = (j < bias_start + c) & ((j < beta_start) | (j >= filters_start))
        tl.store(out + target, first + w1 * second, mask=written)
