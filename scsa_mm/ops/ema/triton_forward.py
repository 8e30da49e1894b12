"""The kernels of EMA's forward pass; ``triton_common`` says what all have in common."""

import triton
import triton.language as tl

from ..arithmetic import EPS
from . import triton_common as common

_EPS = tl.constexpr(EPS)


@triton.jit(do_not_specialize=['B', 'H', 'rows'])
def strip_sums(
    x,
    scratch,
    B,
    C,
    H,
    W,
    rows,
    LAST: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    CB: tl.constexpr,
    ACC: tl.constexpr,
):
    """Sums of x over the rows and over the columns of each tile. Grid: tiles, blocks of channels, images."""
    across = tl.cdiv(W, BW)
    tile_w = tl.program_id(0) % across
    tile_h = tl.program_id(0) // across
    n = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CB + tl.arange(0, CB)
    w = tile_w * BW + tl.arange(0, BW)
    stride_c, stride_h, stride_w = common.strides(C, H, W, LAST)
    inside = (w < W)[:, None] & (channel < C)[None, :]
    pixel = x + n * (C * H * W) + (w[:, None] * stride_w + channel[None, :] * stride_c)
    row_sums = scratch + (tile_w * B + n) * (C * H)
    columns = tl.zeros([BH, BW, CB], ACC)
    for h0 in range(tile_h * rows, tl.minimum(tile_h * rows + rows, H), BH):
        h = h0 + tl.arange(0, BH)
        mask = inside[None, :, :] & (h < H)[:, None, None]
        value = tl.load(pixel[None, :, :] + (h * stride_h)[:, None, None], mask=mask, other=0).to(ACC)
        columns += value
        tl.store(
            row_sums + common.strip(channel[None, :], h[:, None], H, C, LAST),
            tl.sum(value, 1),
            mask=(h < H)[:, None] & (channel < C)[None, :],
        )
    column_sums = scratch + across * (B.to(tl.int64) * (C * H)) + (tile_h * B + n) * (C * W)
    tl.store(column_sums + common.strip(channel[None, :], w[:, None], W, C, LAST), tl.sum(columns, 0), mask=inside)


@triton.jit(do_not_specialize=['B', 'H', 'rows'])
def gates(
    x,
    kept,
    scratch,
    mix,
    mix_bias,
    norm_bias,
    filters,
    filters_bias,
    stride_o,
    stride_i,
    stride_tap,
    B,
    C,
    H,
    W,
    rows,
    c: tl.constexpr,
    HAS_MIX_BIAS: tl.constexpr,
    HAS_NORM_BIAS: tl.constexpr,
    HAS_FILTERS_BIAS: tl.constexpr,
    LAST: tl.constexpr,
    BW: tl.constexpr,
    CP: tl.constexpr,
    IB: tl.constexpr,
    IP: tl.constexpr,
    BL: tl.constexpr,
    ACC: tl.constexpr,
):
    """Strip means and their gates; the last program of each group: its pooled branch 2, and both softmax weights.

    Grid: groups of all images, parts of ``BL`` strip positions and one more, blocks of ``IB`` output channels.
    """
    groups = C // c
    n = (tl.program_id(0) // groups).to(tl.int64)
    first = tl.program_id(0) % groups * c
    part = tl.program_id(1)
    length = H + W
    means, gate, numbers, step, taps, constant, stencil = common.kept(kept, B, C, H, W, c)
    across = tl.cdiv(W, BW)
    row_step = B.to(tl.int64) * (C * H)
    column_step = B.to(tl.int64) * (C * W)
    row_sums = scratch + n * (C * H)
    column_sums = scratch + across * row_step + n * (C * W)
    down = tl.cdiv(H, rows)

    if part * BL < length:
        position = part * BL + tl.arange(0, BL)
        out = tl.program_id(2) * IB + tl.arange(0, IB)
        logit = tl.zeros([IB, BL], ACC)
        strips = n * C * length
        for i0 in range(0, c, IB):
            i = i0 + tl.arange(0, IB)
            channel = (first + i)[:, None]
            inside = (i < c)[:, None] & (position < length)[None, :]
            mean = common.tile_sum(
                row_sums,
                row_step,
                across,
                common.strip(channel, position[None, :], H, C, LAST),
                inside & (position < H)[None, :],
                tl.zeros([IB, BL], ACC),
            )
            mean = common.tile_sum(
                column_sums,
                column_step,
                down,
                common.strip(channel, position[None, :] - H, W, C, LAST),
                inside & (position >= H)[None, :],
                mean,
            )
            mean = mean / tl.where(position < H, W, H)[None, :]
            tl.store(
                means + strips + common.strip(channel, position[None, :], length, C, LAST),
                mean,
                mask=inside & (tl.program_id(2) * IB == i0),
            )
            weight = tl.load(mix + out[:, None] * c + i[None, :], mask=(out < c)[:, None] & (i < c)[None, :], other=0)
            logit += tl.sum(weight.to(ACC)[:, :, None] * mean[None, :, :], 1)
        logit += common.optional(mix_bias, out, out < c, HAS_MIX_BIAS, ACC)[:, None]
        tl.store(
            gate + strips + common.strip((first + out)[:, None], position[None, :], length, C, LAST),
            tl.sigmoid(logit),
            mask=(out < c)[:, None] & (position < length)[None, :],
        )
    elif tl.program_id(2) == 0:
        # Mean of branch 2: the filters times the nine shifted sums T of the zero-padded map, which are the total less
        # the row and the column that the shift moves out, with the corner that was taken off twice.
        stride_c, stride_h, stride_w = common.strides(C, H, W, LAST)
        image = x + n * (C * H * W)
        o = tl.arange(0, CP)
        tap = tl.arange(0, 16)
        up = (tap // 3 == 0)[None, :]
        low = (tap // 3 == 2)[None, :]
        left = (tap % 3 == 0)[None, :]
        right = (tap % 3 == 2)[None, :]
        bias = common.optional(norm_bias, o, o < c, HAS_NORM_BIAS, ACC)
        weight1 = common.softmax(bias, o < c)
        pooled = tl.zeros([CP], ACC)
        for i0 in range(0, c, IP):
            i = i0 + tl.arange(0, IP)
            channel = first + i
            nothing = tl.zeros([IP], ACC)
            rows_added = tl.zeros([IP, BL], ACC)
            for h0 in range(0, H, BL):
                h = (h0 + tl.arange(0, BL))[None, :]
                offsets = common.strip(channel[:, None], h, H, C, LAST)
                rows_added = common.tile_sum(
                    row_sums, row_step, across, offsets, (i < c)[:, None] & (h < H), rows_added
                )
            total = tl.sum(rows_added, 1)[:, None]
            top = common.tile_sum(row_sums, row_step, across, common.strip(channel, 0, H, C, LAST), i < c, nothing)
            bottom = common.tile_sum(
                row_sums, row_step, across, common.strip(channel, H - 1, H, C, LAST), i < c, nothing
            )
            start = common.tile_sum(
                column_sums, column_step, down, common.strip(channel, 0, W, C, LAST), i < c, nothing
            )
            end = common.tile_sum(
                column_sums, column_step, down, common.strip(channel, W - 1, W, C, LAST), i < c, nothing
            )
            corner = image + channel * stride_c
            corner_00 = tl.load(corner, mask=i < c, other=0).to(ACC)
            corner_0w = tl.load(corner + (W - 1) * stride_w, mask=i < c, other=0).to(ACC)
            corner_h0 = tl.load(corner + (H - 1) * stride_h, mask=i < c, other=0).to(ACC)
            corner_hw = tl.load(corner + (H - 1) * stride_h + (W - 1) * stride_w, mask=i < c, other=0).to(ACC)
            shifted = total - tl.where(up, bottom[:, None], 0) - tl.where(low, top[:, None], 0)
            shifted = shifted - tl.where(left, end[:, None], 0) - tl.where(right, start[:, None], 0)
            shifted += tl.where(up & left, corner_hw[:, None], 0) + tl.where(up & right, corner_h0[:, None], 0)
            shifted += tl.where(low & left, corner_0w[:, None], 0) + tl.where(low & right, corner_00[:, None], 0)
            inside = (i < c)[:, None] & (tap < 9)[None, :]
            tl.store(taps + (n * C + channel)[:, None] * 9 + tap[None, :], shifted, mask=inside)
            weight = tl.load(
                filters + o[:, None, None] * stride_o + i[None, :, None] * stride_i + tap[None, None, :] * stride_tap,
                mask=(o < c)[:, None, None] & inside[None, :, :],
                other=0,
            ).to(ACC)
            pooled += tl.sum(tl.sum(weight * shifted[None, :, :], 2), 1)
            # The same for every image and group, so one writes it.
            tl.store(
                stencil + i[:, None] * 9 + tap[None, :],
                tl.sum(weight1[:, None, None] * weight, 0),
                mask=inside & (tl.program_id(0) == 0),
            )
        filters_bias_ = common.optional(filters_bias, o, o < c, HAS_FILTERS_BIAS, ACC)
        weight2 = common.softmax(pooled / (H * W) + filters_bias_, o < c)
        tl.store(numbers + 3 * step + n * C + first + o, weight2, mask=o < c)
        tl.store(constant + tl.program_id(0), tl.sum(weight1 * filters_bias_ + weight2 * bias, 0))


@triton.jit(do_not_specialize=['B', 'H', 'rows'])
def moments(
    x,
    kept,
    scratch,
    B,
    C,
    H,
    W,
    rows,
    c: tl.constexpr,
    LAST: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    CB: tl.constexpr,
    ACC: tl.constexpr,
):
    """Mean of y = x a_h a_w and sum of its squared deviations, each tile for itself. Grid as in :func:`strip_sums`.

    Sums are made of y less a pilot, the mean of the first chunk. If that chunk holds one part in p of the tile, its own
    deviations bound what cancels: at most a factor of 1 + p (p <= 8 chunks) is lost, however large the mean is.
    """
    across = tl.cdiv(W, BW)
    tile_w = tl.program_id(0) % across
    tile_h = tl.program_id(0) // across
    n = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CB + tl.arange(0, CB)
    w = tile_w * BW + tl.arange(0, BW)
    stride_c, stride_h, stride_w = common.strides(C, H, W, LAST)
    length = H + W
    means, gate, numbers, step, taps, constant, stencil = common.kept(kept, B, C, H, W, c)
    gate += n * C * length
    inside = (w < W)[:, None] & (channel < C)[None, :]
    pixel = x + n * (C * H * W) + (w[:, None] * stride_w + channel[None, :] * stride_c)
    gate_w = tl.load(gate + common.strip(channel[None, :], H + w[:, None], length, C, LAST), mask=inside, other=0)

    start = tile_h * rows
    end = tl.minimum(start + rows, H)
    columns = tl.minimum(W - tile_w * BW, BW)
    pilot = tl.zeros([CB], ACC)
    first = tl.zeros([BH, BW, CB], ACC)
    second = tl.zeros([BH, BW, CB], ACC)
    for h0 in range(start, end, BH):
        h = h0 + tl.arange(0, BH)
        mask = inside[None, :, :] & (h < H)[:, None, None]
        value = tl.load(pixel[None, :, :] + (h * stride_h)[:, None, None], mask=mask, other=0).to(ACC)
        gate_h = tl.load(
            gate + common.strip(channel[None, :], h[:, None], length, C, LAST),
            mask=(h < H)[:, None] & (channel < C)[None, :],
            other=0,
        )
        y = value * gate_h[:, None, :] * gate_w[None, :, :]
        if h0 == start:
            pilot = tl.sum(tl.sum(y, 1), 0) / (tl.minimum(BH, end - start) * columns)
        y = tl.where(mask, y - pilot[None, None, :], 0)
        first += y
        second += y * y
    count = (end - start) * columns
    shift = tl.sum(tl.sum(first, 1), 0) / count
    deviations = tl.sum(tl.sum(second, 1), 0) - count * shift * shift
    out = scratch + (tl.program_id(0) * B + n) * 2 * C + channel
    tl.store(out, pilot + shift, mask=channel < C)
    tl.store(out + C, tl.maximum(deviations, 0), mask=channel < C)


@triton.jit(do_not_specialize=['B', 'H', 'rows', 'share'])
def output(
    x,
    out,
    logits,
    kept,
    scratch,
    norm_weight,
    B,
    C,
    H,
    W,
    rows,
    share,
    c: tl.constexpr,
    UNIT: tl.constexpr,
    LAST: tl.constexpr,
    TILE_BW: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    NG: tl.constexpr,
    NC: tl.constexpr,
    CP: tl.constexpr,
    ACC: tl.constexpr,
):
    """Logits z, and x * sigmoid(z). Grid: ``share`` chunks of pixels each, blocks of ``NG`` groups, images."""
    groups = C // c
    n = tl.program_id(2).to(tl.int64)
    length = H + W
    means, gate, numbers, step, taps, constant, stencil = common.kept(kept, B, C, H, W, c)
    gate += n * C * length

    # The moments of the tiles, put together by Chan's formula. Every program does this for its own groups and writes
    # the same numbers to the same place: cheaper than one more launch.
    tile_columns = tl.cdiv(W, TILE_BW)
    tiles = tile_columns * tl.cdiv(H, rows)
    column = tl.arange(0, NC)
    all_channels = tl.program_id(1) * NG * c + column
    exists = (column < NG * c) & (all_channels < C)
    partial = scratch + n * 2 * C + all_channels
    weighted = tl.zeros([16, NC], ACC)
    for t0 in range(0, tiles, 16):
        t = t0 + tl.arange(0, 16)
        count = tl.minimum(H - t // tile_columns * rows, rows) * tl.minimum(W - t % tile_columns * TILE_BW, TILE_BW)
        loaded = (t < tiles)[:, None] & exists[None, :]
        weighted += count[:, None] * tl.load(partial[None, :] + (t * B)[:, None] * 2 * C, mask=loaded, other=0)
    mean = tl.sum(weighted, 0) / (H * W)
    weighted = tl.zeros([16, NC], ACC)
    for t0 in range(0, tiles, 16):
        t = t0 + tl.arange(0, 16)
        count = tl.minimum(H - t // tile_columns * rows, rows) * tl.minimum(W - t % tile_columns * TILE_BW, TILE_BW)
        loaded = (t < tiles)[:, None] & exists[None, :]
        pointer = partial[None, :] + (t * B)[:, None] * 2 * C
        shift = tl.load(pointer, mask=loaded, other=0) - mean[None, :]
        deviations = tl.load(pointer + C, mask=loaded, other=0)
        weighted += tl.where(loaded, deviations + count[:, None] * shift * shift, 0)
    rstd = 1 / tl.sqrt(tl.sum(weighted, 0) / (H * W) + _EPS)
    number = numbers + n * C + all_channels
    scale = tl.load(norm_weight + column % c, mask=exists, other=0).to(ACC)
    tl.store(number, mean, mask=exists)
    tl.store(number + step, rstd, mask=exists)
    tl.store(number + 2 * step, tl.load(number + 3 * step, mask=exists, other=0) * scale * rstd, mask=exists)
    tl.debug_barrier()  # below they are read by other threads

    across = tl.cdiv(W, BW)
    chunks = across * tl.cdiv(H, BH)
    stride_c, stride_h, stride_w = common.strides(C, H, W, LAST)
    stride_g, stride_y, stride_x = common.strides(groups, H, W, LAST)
    image = n * (C * H * W)
    for chunk in range(tl.program_id(0) * share, tl.minimum(tl.program_id(0) * share + share, chunks)):
        h = (chunk // across * BH + tl.arange(0, BH))[:, None, None, None]
        w = (chunk % across * BW + tl.arange(0, BW))[None, :, None, None]
        group = (tl.program_id(1) * NG + tl.arange(0, NG))[None, None, :, None]
        z = tl.zeros([BH, BW, NG], ACC)
        center = tl.zeros([BH, BW, NG, CP], ACC)
        for c0 in range(0, c, CP):
            within = (c0 + tl.arange(0, CP))[None, None, None, :]
            channel = group * c + within
            valid = (within < c) & (group < groups)
            inside = (h < H) & (w < W) & valid
            pixel = x + image + (h * stride_h + w * stride_w + channel * stride_c)
            center = tl.load(pixel, mask=inside, other=0).to(ACC)
            gate_h = tl.load(gate + common.strip(channel, h, length, C, LAST), mask=(h < H) & valid, other=0)
            gate_w = tl.load(gate + common.strip(channel, H + w, length, C, LAST), mask=(w < W) & valid, other=0)
            mean_ = tl.load(numbers + n * C + channel, mask=valid, other=0)
            weight = tl.load(numbers + n * C + 2 * step + channel, mask=valid, other=0)
            added = weight * (center * gate_h * gate_w - mean_)
            for tap in tl.static_range(9):
                dy = tap // 3 - 1
                dx = tap % 3 - 1
                if tap == 4:
                    value = center
                else:
                    shown = (h + dy >= 0) & (h + dy < H) & (w + dx >= 0) & (w + dx < W) & valid
                    value = tl.load(pixel + (dy * stride_h + dx * stride_w), mask=shown, other=0).to(ACC)
                added += tl.load(stencil + within * 9 + tap, mask=within < c, other=0) * value
            z += tl.sum(added, 3)

        group = (tl.program_id(1) * NG + tl.arange(0, NG))[None, None, :]
        z += tl.load(constant + n * groups + group, mask=group < groups, other=0)
        h = (chunk // across * BH + tl.arange(0, BH))[:, None, None]
        w = (chunk % across * BW + tl.arange(0, BW))[None, :, None]
        inside = (h < H) & (w < W) & (group < groups)
        tl.store(logits + n * (groups * H * W) + (h * stride_y + w * stride_x + group * stride_g), z, mask=inside)
        factor = tl.sigmoid(z)[:, :, :, None]
        if UNIT:
            factor = 2 * factor
        h, w, group, inside = h[:, :, :, None], w[:, :, :, None], group[:, :, :, None], inside[:, :, :, None]
        for c0 in range(0, c, CP):
            within = (c0 + tl.arange(0, CP))[None, None, None, :]
            offsets = image + (h * stride_h + w * stride_w + (group * c + within) * stride_c)
            mask = inside & (within < c)
            if c > CP:
                center = tl.load(x + offsets, mask=mask, other=0).to(ACC)
            tl.store(out + offsets, center * factor, mask=mask)
