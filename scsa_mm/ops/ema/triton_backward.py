"""The kernels of EMA's backward pass; ``triton_common`` says what all have in common."""

import triton
import triton.language as tl

from . import triton_common as common


@triton.jit
def _scratch(scratch, B, C, H, W, rows, BLOCK: tl.constexpr, BW: tl.constexpr, c: tl.constexpr):
    """Parts of the buffer of the backward pass, in this order.

    dz (B, groups, H, W); its sums by blocks of pixels; three sums over the rows, and over the columns, of each tile;
    ten sums of each tile; what the strips add to the gradient (B, C, H + W); six numbers a channel; the sums of each
    group for the parameters.
    """
    channels = B.to(tl.int64) * C
    across = tl.cdiv(W, BW)
    down = tl.cdiv(H, rows)
    totals = scratch + channels // c * (H * W)
    row_sums = totals + channels // c * tl.cdiv(H * W, BLOCK)
    column_sums = row_sums + 3 * across * channels * H
    sums = column_sums + 3 * down * channels * W
    strips = sums + 10 * (across * down) * channels
    numbers = strips + channels * (H + W)
    parameters = numbers + 6 * channels
    return totals, row_sums, column_sums, sums, strips, numbers, parameters


@triton.jit(do_not_specialize=['B', 'H', 'rows'])
def logit_grad(
    grad,
    x,
    logits,
    scratch,
    B,
    C,
    H,
    W,
    rows,
    c: tl.constexpr,
    UNIT: tl.constexpr,
    LAST: tl.constexpr,
    TILE_BW: tl.constexpr,
    BLOCK: tl.constexpr,
    NG: tl.constexpr,
    CP: tl.constexpr,
    ACC: tl.constexpr,
):
    """dz, the gradient of the logits, and its sum over the pixels. Grid: blocks of pixels, of groups, images."""
    groups = C // c
    n = tl.program_id(2).to(tl.int64)
    totals, row_sums, column_sums, sums, strips, numbers, parameters = _scratch(
        scratch, B, C, H, W, rows, BLOCK, TILE_BW, c
    )
    size = H * W
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    group = tl.program_id(1) * NG + tl.arange(0, NG)
    inside = (p < size)[:, None] & (group < groups)[None, :]
    product = tl.zeros([BLOCK, NG], ACC)
    for c0 in range(0, c, CP):
        within = (c0 + tl.arange(0, CP))[None, None, :]
        channel = group[None, :, None] * c + within
        if LAST:
            offsets = p[:, None, None] * C + channel
        else:
            offsets = channel * size + p[:, None, None]
        offsets = n * (C * size) + offsets
        mask = inside[:, :, None] & (within < c)
        product += tl.sum(
            tl.load(x + offsets, mask=mask, other=0).to(ACC) * tl.load(grad + offsets, mask=mask, other=0).to(ACC), 2
        )
    if LAST:
        offsets = p[:, None] * groups + group[None, :]
    else:
        offsets = group[None, :] * size + p[:, None]
    offsets = n * (groups * size) + offsets
    z = tl.load(logits + offsets, mask=inside, other=0).to(ACC)
    dz = product * tl.sigmoid(z) * tl.sigmoid(-z)
    if UNIT:
        dz = 2 * dz
    tl.store(scratch + offsets, dz, mask=inside)
    blocks = tl.cdiv(size, BLOCK)
    tl.store(totals + (n * groups + group) * blocks + tl.program_id(0), tl.sum(dz, 0), mask=group < groups)


@triton.jit(do_not_specialize=['B', 'H', 'rows'])
def tile_sums(
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
    BLOCK: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    CB: tl.constexpr,
    ACC: tl.constexpr,
):
    """All sums of dz times x that the gradients need, each tile for itself. Grid as in :func:`strip_sums`.

    Over rows, with v = x a_w (over columns, with v = x a_h): of dz v, v and (y - mu) v. Over the tile: of dz times
    each of the nine shifts of x, and of dz (y - mu).
    """
    across = tl.cdiv(W, BW)
    tile_w = tl.program_id(0) % across
    tile_h = tl.program_id(0) // across
    n = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CB + tl.arange(0, CB)
    w = tile_w * BW + tl.arange(0, BW)
    stride_c, stride_h, stride_w = common.strides(C, H, W, LAST)
    stride_g, stride_y, stride_x = common.strides(C // c, H, W, LAST)
    length = H + W
    means, gate, numbers, step, taps, constant, stencil = common.kept(kept, B, C, H, W, c)
    totals, row_sums, column_sums, sums, strips, pack, parameters = _scratch(scratch, B, C, H, W, rows, BLOCK, BW, c)
    gate += n * C * length
    valid = channel < C
    inside = (w < W)[:, None] & valid[None, :]
    pixel = x + n * (C * H * W) + (w[:, None] * stride_w + channel[None, :] * stride_c)
    slope = scratch + n * (C // c * H * W) + (w[:, None] * stride_x + (channel // c)[None, :] * stride_g)
    gate_w = tl.load(gate + common.strip(channel[None, :], H + w[:, None], length, C, LAST), mask=inside, other=0)
    mean = tl.load(numbers + n * C + channel, mask=valid, other=0)[None, None, :]
    has_left = (inside & (w >= 1)[:, None])[None, :, :]
    has_right = (inside & (w + 1 < W)[:, None])[None, :, :]

    row_step = across * (B.to(tl.int64) * (C * H))
    row_sums += (tile_w * B + n) * (C * H)
    column_dz = tl.zeros([BH, BW, CB], ACC)
    column_v = tl.zeros([BH, BW, CB], ACC)
    column_y = tl.zeros([BH, BW, CB], ACC)
    centred = tl.zeros([BH, BW, CB], ACC)
    f0 = tl.zeros([BH, BW, CB], ACC)
    f1 = tl.zeros([BH, BW, CB], ACC)
    f2 = tl.zeros([BH, BW, CB], ACC)
    f3 = tl.zeros([BH, BW, CB], ACC)
    f4 = tl.zeros([BH, BW, CB], ACC)
    f5 = tl.zeros([BH, BW, CB], ACC)
    f6 = tl.zeros([BH, BW, CB], ACC)
    f7 = tl.zeros([BH, BW, CB], ACC)
    f8 = tl.zeros([BH, BW, CB], ACC)
    for h0 in range(tile_h * rows, tl.minimum(tile_h * rows + rows, H), BH):
        h = h0 + tl.arange(0, BH)
        here = (h < H)[:, None, None]
        above = here & (h >= 1)[:, None, None]
        below = (h + 1 < H)[:, None, None]
        mask = inside[None, :, :] & here
        at = pixel[None, :, :] + (h * stride_h)[:, None, None]
        value = tl.load(at, mask=mask, other=0).to(ACC)
        dz = tl.load(slope[None, :, :] + (h * stride_y)[:, None, None], mask=mask, other=0)
        row_mask = (h < H)[:, None] & valid[None, :]
        gate_h = tl.load(gate + common.strip(channel[None, :], h[:, None], length, C, LAST), mask=row_mask, other=0)
        by_w = value * gate_w[None, :, :]
        by_h = value * gate_h[:, None, :]
        y = tl.where(mask, by_h * gate_w[None, :, :] - mean, 0)
        offsets = common.strip(channel[None, :], h[:, None], H, C, LAST)
        tl.store(row_sums + offsets, tl.sum(dz * by_w, 1), mask=row_mask)
        tl.store(row_sums + row_step + offsets, tl.sum(by_w, 1), mask=row_mask)
        tl.store(row_sums + 2 * row_step + offsets, tl.sum(y * by_w, 1), mask=row_mask)
        column_dz += dz * by_h
        column_v += by_h
        column_y += y * by_h
        centred += dz * y
        f4 += dz * value
        f3 += dz * tl.load(at - stride_w, mask=has_left & here, other=0).to(ACC)
        f5 += dz * tl.load(at + stride_w, mask=has_right & here, other=0).to(ACC)
        up = at - stride_h
        f0 += dz * tl.load(up - stride_w, mask=has_left & above, other=0).to(ACC)
        f1 += dz * tl.load(up, mask=inside[None, :, :] & above, other=0).to(ACC)
        f2 += dz * tl.load(up + stride_w, mask=has_right & above, other=0).to(ACC)
        low = at + stride_h
        f6 += dz * tl.load(low - stride_w, mask=has_left & below, other=0).to(ACC)
        f7 += dz * tl.load(low, mask=inside[None, :, :] & below, other=0).to(ACC)
        f8 += dz * tl.load(low + stride_w, mask=has_right & below, other=0).to(ACC)

    column_step = tl.cdiv(H, rows) * (B.to(tl.int64) * (C * W))
    column_sums += (tile_h * B + n) * (C * W) + common.strip(channel[None, :], w[:, None], W, C, LAST)
    tl.store(column_sums, tl.sum(column_dz, 0), mask=inside)
    tl.store(column_sums + column_step, tl.sum(column_v, 0), mask=inside)
    tl.store(column_sums + 2 * column_step, tl.sum(column_y, 0), mask=inside)
    sums += (tl.program_id(0) * B + n) * (10 * C) + channel
    tl.store(sums, tl.sum(tl.sum(f0, 1), 0), mask=valid)
    tl.store(sums + C, tl.sum(tl.sum(f1, 1), 0), mask=valid)
    tl.store(sums + 2 * C, tl.sum(tl.sum(f2, 1), 0), mask=valid)
    tl.store(sums + 3 * C, tl.sum(tl.sum(f3, 1), 0), mask=valid)
    tl.store(sums + 4 * C, tl.sum(tl.sum(f4, 1), 0), mask=valid)
    tl.store(sums + 5 * C, tl.sum(tl.sum(f5, 1), 0), mask=valid)
    tl.store(sums + 6 * C, tl.sum(tl.sum(f6, 1), 0), mask=valid)
    tl.store(sums + 7 * C, tl.sum(tl.sum(f7, 1), 0), mask=valid)
    tl.store(sums + 8 * C, tl.sum(tl.sum(f8, 1), 0), mask=valid)
    tl.store(sums + 9 * C, tl.sum(tl.sum(centred, 1), 0), mask=valid)


@triton.jit
def _gate_logit_grad(
    row_sums,
    column_sums,
    gate,
    number,
    step,
    centred,
    d0,
    first,
    o,
    position,
    B,
    C,
    H,
    W,
    across,
    down,
    c: tl.constexpr,
    LAST: tl.constexpr,
    OB: tl.constexpr,
    BL: tl.constexpr,
    ACC: tl.constexpr,
):
    """Gradient of the logits of the strip gates, for some channels and positions.

    With dy = k (dz - d0 - e (y - mu)): da_h = k (sum of dz v - d0 sum of v - e sum of (y - mu) v), and the same for w.
    """
    length = H + W
    channel = (first + o)[:, None]
    inside = (o < c)[:, None] & (position < length)[None, :]
    vertical = inside & (position < H)[None, :]
    horizontal = inside & (position >= H)[None, :]
    row_offsets = common.strip(channel, position[None, :], H, C, LAST)
    column_offsets = common.strip(channel, position[None, :] - H, W, C, LAST)
    row_tile = B.to(tl.int64) * (C * H)
    column_tile = B.to(tl.int64) * (C * W)
    row_step = across * row_tile
    column_step = down * column_tile
    nothing = tl.zeros([OB, BL], ACC)
    dz = common.tile_sum(row_sums, row_tile, across, row_offsets, vertical, nothing)
    dz = common.tile_sum(column_sums, column_tile, down, column_offsets, horizontal, dz)
    v = common.tile_sum(row_sums + row_step, row_tile, across, row_offsets, vertical, nothing)
    v = common.tile_sum(column_sums + column_step, column_tile, down, column_offsets, horizontal, v)
    y = common.tile_sum(row_sums + 2 * row_step, row_tile, across, row_offsets, vertical, nothing)
    y = common.tile_sum(column_sums + 2 * column_step, column_tile, down, column_offsets, horizontal, y)
    rstd = tl.load(number + step + o, mask=o < c, other=0)
    weight = tl.load(number + 2 * step + o, mask=o < c, other=0)
    slope = rstd * rstd * centred / (H * W)
    a = tl.load(gate + common.strip(channel, position[None, :], length, C, LAST), mask=inside, other=0)
    return weight[:, None] * (dz - d0 * v - slope[:, None] * y) * a * (1 - a)


@triton.jit(do_not_specialize=['B', 'H', 'rows'])
def group_grad(
    kept,
    scratch,
    mix,
    norm_weight,
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
    HAS_NORM_BIAS: tl.constexpr,
    HAS_FILTERS_BIAS: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
    BW: tl.constexpr,
    CP: tl.constexpr,
    IB: tl.constexpr,
    OB: tl.constexpr,
    BL: tl.constexpr,
    ACC: tl.constexpr,
):
    """Everything of the backward pass that is not of full size. Grid: groups of all images, blocks of ``IB`` channels.

    Writes what the strips and the pooled branch 2 add to the gradient of x, and what this group adds to those of the
    parameters, as (conv1x1.weight, conv1x1.bias, norm.weight, conv3x3.bias, dm, dF (c, 9)) and norm.bias.
    """
    groups = C // c
    n = (tl.program_id(0) // groups).to(tl.int64)
    first = tl.program_id(0) % groups * c
    length = H + W
    size = H * W
    across = tl.cdiv(W, BW)
    down = tl.cdiv(H, rows)
    means, gate, numbers, step, taps, constant, stencil = common.kept(kept, B, C, H, W, c)
    totals, row_sums, column_sums, sums, strips, pack, parameters = _scratch(scratch, B, C, H, W, rows, BLOCK, BW, c)
    means += n * C * length
    gate += n * C * length
    strips += n * C * length
    number = numbers + n * C + first
    pack += n * C + first
    row_sums += n * (C * H)
    column_sums += n * (C * W)
    sums += n * (10 * C) + first
    tile_step = B.to(tl.int64) * (10 * C)
    tiles = across * down
    leader = tl.program_id(1) == 0

    # Sum of dz, and the softmax of pooled branch 2.
    blocks = tl.cdiv(size, BLOCK)
    added = tl.zeros([256], ACC)
    for t0 in range(0, blocks, 256):
        block = t0 + tl.arange(0, 256)
        added += tl.load(totals + tl.program_id(0).to(tl.int64) * blocks + block, mask=block < blocks, other=0)
    total = tl.sum(added, 0)
    d0 = total / size
    o = tl.arange(0, CP)
    real = o < c
    many = tl.zeros([16, CP], ACC)
    for t0 in range(0, tiles, 16):
        t = (t0 + tl.arange(0, 16))[:, None]
        many += tl.load(sums + t * tile_step + (9 * C + o)[None, :], mask=(t < tiles) & real[None, :], other=0)
    centred = tl.sum(many, 0)
    rstd = tl.load(number + step + o, mask=real, other=0)
    weight2 = tl.load(number + 3 * step + o, mask=real, other=0)
    scale = tl.load(norm_weight + o, mask=real, other=0).to(ACC)
    shift = common.optional(norm_bias, o, real, HAS_NORM_BIAS, ACC)
    dweight2 = scale * rstd * centred + shift * total
    dm = weight2 * (dweight2 - tl.sum(weight2 * dweight2, 0))
    weight1 = common.softmax(shift, real)

    # The 3x3 filters: under the softmax of beta (dF), and pooled (dm).
    i = tl.program_id(1) * IB + tl.arange(0, IB)
    tap = tl.arange(0, 16)
    inside = (i < c)[:, None] & (tap < 9)[None, :]
    many_taps = tl.zeros([16, IB, 16], ACC)
    for t0 in range(0, tiles, 16):
        t_ = (t0 + tl.arange(0, 16))[:, None, None]
        nine_sums = sums + t_ * tile_step + (tap[None, :] * C + i[:, None])[None, :, :]
        many_taps += tl.load(nine_sums, mask=(t_ < tiles) & inside[None, :, :], other=0)
    dfilter = tl.sum(many_taps, 0)
    weight = tl.load(
        filters + o[:, None, None] * stride_o + i[None, :, None] * stride_i + tap[None, None, :] * stride_tap,
        mask=real[:, None, None] & inside[None, :, :],
        other=0,
    ).to(ACC)
    spread = tl.sum(dm[:, None, None] * weight, 0) / size
    dweight1 = tl.sum(tl.sum(weight * dfilter[None, :, :], 2), 1)
    if leader:
        dweight1 += common.optional(filters_bias, o, real, HAS_FILTERS_BIAS, ACC) * total
    dbeta = weight1 * (dweight1 - tl.sum(weight1 * dweight1, 0))
    if leader:
        dbeta += weight2 * total

    row = parameters + tl.program_id(0).to(tl.int64) * (c * c + 13 * c)
    tl.store(row + c * c + 4 * c + i[:, None] * 9 + tap[None, :], dfilter, mask=inside)
    if leader:
        tl.store(row + c * c + c + o, weight2 * rstd * centred, mask=real)
        tl.store(row + c * c + 2 * c + o, weight1 * total + dm, mask=real)
        tl.store(row + c * c + 3 * c + o, dm, mask=real)
        tl.store(pack + o, tl.zeros([CP], ACC) + d0, mask=real)
        k = tl.load(number + 2 * step + o, mask=real, other=0)
        tl.store(pack + step + o, k * rstd * rstd * centred / size, mask=real)
    shares = parameters + B.to(tl.int64) * groups * (c * c + 13 * c)
    shares += (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * c
    tl.store(shares + o, dbeta, mask=real)

    # A tap sees no pixel of the row and the column that it moves out: T taken apart again.
    up = (tap // 3 == 0)[None, :] & inside
    low = (tap // 3 == 2)[None, :] & inside
    left = (tap % 3 == 0)[None, :] & inside
    right = (tap % 3 == 2)[None, :] & inside
    everywhere = tl.sum(spread, 1)
    last_row = tl.sum(tl.where(up, spread, 0), 1)
    first_row = tl.sum(tl.where(low, spread, 0), 1)
    last_column = tl.sum(tl.where(left, spread, 0), 1)
    first_column = tl.sum(tl.where(right, spread, 0), 1)
    tl.store(pack + 2 * step + i, tl.sum(tl.where(low & right, spread, 0), 1), mask=i < c)
    tl.store(pack + 3 * step + i, tl.sum(tl.where(low & left, spread, 0), 1), mask=i < c)
    tl.store(pack + 4 * step + i, tl.sum(tl.where(up & right, spread, 0), 1), mask=i < c)
    tl.store(pack + 5 * step + i, tl.sum(tl.where(up & left, spread, 0), 1), mask=i < c)

    # The strips: gates, 1x1 convolution, means.
    channel = (first + i)[:, None]
    dmix = tl.zeros([OB, IB], ACC)
    dmix_bias = tl.zeros([OB, BL], ACC)
    for l0 in range(0, length, BL):
        position = l0 + tl.arange(0, BL)
        on_strip = (i < c)[:, None] & (position < length)[None, :]
        offsets = common.strip(channel, position[None, :], length, C, LAST)
        dmean = tl.zeros([IB, BL], ACC)
        for o0 in range(0, c, OB):
            some = o0 + tl.arange(0, OB)
            if OB == CP:
                some_centred = centred
            else:
                some_centred = common.tile_sum(sums + 9 * C, tile_step, tiles, some, some < c, tl.zeros([OB], ACC))
            dlogit = _gate_logit_grad(
                row_sums, column_sums, gate, number, step, some_centred, d0, first, some, position,
                B, C, H, W, across, down, c, LAST, OB, BL, ACC,
            )  # fmt: skip
            mixed = tl.load(mix + some[:, None] * c + i[None, :], mask=(some < c)[:, None] & (i < c)[None, :], other=0)
            dmean += tl.sum(mixed.to(ACC)[:, :, None] * dlogit[:, None, :], 0)
            if OB == CP:
                mean = tl.load(means + offsets, mask=on_strip, other=0)
                dmix += tl.sum(dlogit[:, None, :] * mean[None, :, :], 2)
                dmix_bias += dlogit
        vertical = (position == 0)[None, :] * first_row[:, None] + (position == H - 1)[None, :] * last_row[:, None]
        horizontal = (position == H)[None, :] * first_column[:, None]
        horizontal += (position == length - 1)[None, :] * last_column[:, None]
        dmean = dmean / tl.where(position < H, W, H)[None, :]
        dmean += tl.where((position < H)[None, :], everywhere[:, None] - vertical, -horizontal)
        tl.store(strips + offsets, dmean, mask=on_strip)
    if OB == CP:
        tl.store(row + o[:, None] * c + i[None, :], dmix, mask=real[:, None] & (i < c)[None, :])
        if leader:
            tl.store(row + c * c + o, tl.sum(dmix_bias, 1), mask=real)
    else:
        # Many channels: once more, this time with the positions inside.
        for o0 in range(0, c, OB):
            some = o0 + tl.arange(0, OB)
            some_centred = common.tile_sum(sums + 9 * C, tile_step, tiles, some, some < c, tl.zeros([OB], ACC))
            dmix = tl.zeros([OB, IB], ACC)
            dmix_bias = tl.zeros([OB, BL], ACC)
            for l0 in range(0, length, BL):
                position = l0 + tl.arange(0, BL)
                dlogit = _gate_logit_grad(
                    row_sums, column_sums, gate, number, step, some_centred, d0, first, some, position,
                    B, C, H, W, across, down, c, LAST, OB, BL, ACC,
                )  # fmt: skip
                mean = tl.load(
                    means + common.strip(channel, position[None, :], length, C, LAST),
                    mask=(i < c)[:, None] & (position < length)[None, :],
                    other=0,
                )
                dmix += tl.sum(dlogit[:, None, :] * mean[None, :, :], 2)
                dmix_bias += dlogit
            tl.store(row + some[:, None] * c + i[None, :], dmix, mask=(some < c)[:, None] & (i < c)[None, :])
            if leader:
                tl.store(row + c * c + some, tl.sum(dmix_bias, 1), mask=some < c)


@triton.jit
def _parameter_grad(
    block,
    out,
    kept,
    parameters,
    norm_bias,
    stride_o,
    stride_i,
    stride_tap,
    B,
    C,
    H,
    W,
    c: tl.constexpr,
    HAS_NORM_BIAS: tl.constexpr,
    SHARES: tl.constexpr,
    CP: tl.constexpr,
    RB: tl.constexpr,
    ACC: tl.constexpr,
):
    """Some of the parameters' gradients: the sums of all groups of all images.

    The order is that of ``arguments.flatten``. The gradient of the 3x3 filters is w1 dF + dm T / (H W) of each group.
    """
    means, gate, numbers, step, taps, constant, stencil = common.kept(kept, B, C, H, W, c)
    count = B * (C // c)
    row_step = c * c + 13 * c
    j = block * RB + tl.arange(0, RB)
    filters_start = c * c + 3 * c
    filters_end = filters_start + 9 * c * c
    plain = (j < c * c + 2 * c) | ((j >= filters_end) & (j < filters_end + c))
    source = tl.where(j >= filters_end, j - filters_end + c * c + 2 * c, j)
    is_beta = (j >= c * c + 2 * c) & (j < filters_start)
    in_filters = (j >= filters_start) & (j < filters_end)
    k = tl.where(in_filters, j - filters_start, 0)
    o = k // (9 * c)
    i = k // 9 % c
    tap = k % 9
    shares = parameters + B.to(tl.int64) * (C // c) * row_step
    every = tl.arange(0, CP)
    weight1 = common.softmax(common.optional(norm_bias, every, every < c, HAS_NORM_BIAS, ACC), every < c)
    # One of the softmax's numbers for each filter.
    weight1 = tl.sum(tl.where(every[None, :] == o[:, None], weight1[None, :], 0), 1)
    some_beta = (block * RB < filters_start) & (block * RB + RB > c * c + 2 * c)
    shares_here = tl.where(some_beta, SHARES, 0)
    total = tl.zeros([16, RB], ACC)
    spread = tl.zeros([16, RB], ACC)
    for t0 in range(0, count, 16):
        t = (t0 + tl.arange(0, 16))[:, None]
        valid = t < count
        row = parameters + t.to(tl.int64) * row_step
        total += tl.load(row + source[None, :], mask=valid & plain[None, :], other=0)
        for s in range(shares_here):
            at = shares + (t.to(tl.int64) * SHARES + s) * c + (j - c * c - 2 * c)[None, :]
            total += tl.load(at, mask=valid & is_beta[None, :], other=0)
        mask = valid & in_filters[None, :]
        total += weight1[None, :] * tl.load(row + c * c + 4 * c + (i * 9 + tap)[None, :], mask=mask, other=0)
        dm = tl.load(row + c * c + 3 * c + o[None, :], mask=mask, other=0)
        spread += dm * tl.load(taps + t.to(tl.int64) * (9 * c) + (i * 9 + tap)[None, :], mask=mask, other=0)
    result = tl.sum(total, 0) + tl.sum(spread, 0) / (H * W)
    target = tl.where(in_filters, filters_start + o * stride_o + i * stride_i + tap * stride_tap, j)
    tl.store(out + target, result, mask=j < filters_end + c)


@triton.jit(do_not_specialize=['B', 'H', 'rows'])
def input_grad(
    grad,
    x,
    logits,
    kept,
    scratch,
    dx,
    dparameters,
    norm_bias,
    stride_o,
    stride_i,
    stride_tap,
    B,
    C,
    H,
    W,
    rows,
    c: tl.constexpr,
    HAS_NORM_BIAS: tl.constexpr,
    UNIT: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE_BW: tl.constexpr,
    SHARES: tl.constexpr,
    CP: tl.constexpr,
    RB: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    CB: tl.constexpr,
    ACC: tl.constexpr,
):
    """The gradient of x, and in the first programs those of the parameters.

    Grid: the blocks of ``RB`` parameters, and then chunks times blocks of channels times images.
    """
    groups = C // c
    totals, row_sums, column_sums, sums, strips, pack, parameters = _scratch(
        scratch, B, C, H, W, rows, BLOCK, TILE_BW, c
    )
    parameter_blocks: tl.constexpr = (10 * c * c + 4 * c + RB - 1) // RB
    if tl.program_id(0) < parameter_blocks:
        _parameter_grad(
            tl.program_id(0), dparameters, kept, parameters, norm_bias, stride_o, stride_i, stride_tap,
            B, C, H, W, c, HAS_NORM_BIAS, SHARES, CP, RB, ACC,
        )  # fmt: skip
    else:
        means, gate, numbers, step, taps, constant, stencil = common.kept(kept, B, C, H, W, c)
        program = tl.program_id(0) - parameter_blocks
        across = tl.cdiv(W, BW)
        chunks = across * tl.cdiv(H, BH)
        chunk = program % chunks
        program = program // chunks
        channel_blocks = tl.cdiv(C, CB)
        n = (program // channel_blocks).to(tl.int64)
        channel = (program % channel_blocks * CB + tl.arange(0, CB))[None, None, :]
        h = (chunk // across * BH + tl.arange(0, BH))[:, None, None]
        w = (chunk % across * BW + tl.arange(0, BW))[None, :, None]
        stride_c, stride_h, stride_w = common.strides(C, H, W, LAST)
        stride_g, stride_y, stride_x = common.strides(groups, H, W, LAST)
        length = H + W
        valid = channel < C
        inside = (h < H) & (w < W) & valid
        image = n * (C * H * W)
        offsets = image + (h * stride_h + w * stride_w + channel * stride_c)
        value = tl.load(x + offsets, mask=inside, other=0).to(ACC)
        incoming = tl.load(grad + offsets, mask=inside, other=0).to(ACC)
        at = n * (groups * H * W) + (h * stride_y + w * stride_x + channel // c * stride_g)
        z = tl.load(logits + at, mask=inside, other=0).to(ACC)
        factor = tl.sigmoid(z)
        if UNIT:
            factor = 2 * factor
        strip_h = n * C * length + common.strip(channel, h, length, C, LAST)
        strip_w = n * C * length + common.strip(channel, H + w, length, C, LAST)
        gate_h = tl.load(gate + strip_h, mask=(h < H) & valid, other=0)
        gate_w = tl.load(gate + strip_w, mask=(w < W) & valid, other=0)
        number = n * C + channel
        mean = tl.load(numbers + number, mask=valid, other=0)
        weight = tl.load(numbers + 2 * step + number, mask=valid, other=0)
        d0 = tl.load(pack + number, mask=valid, other=0)
        slope = tl.load(pack + step + number, mask=valid, other=0)
        dz = tl.load(scratch + at, mask=inside, other=0)
        both = gate_h * gate_w
        result = incoming * factor + both * (weight * (dz - d0) - slope * (value * both - mean))
        result += tl.load(strips + strip_h, mask=(h < H) & valid, other=0)
        result += tl.load(strips + strip_w, mask=(w < W) & valid, other=0)
        corner_00 = tl.load(pack + 2 * step + number, mask=valid, other=0)
        corner_0w = tl.load(pack + 3 * step + number, mask=valid, other=0)
        corner_h0 = tl.load(pack + 4 * step + number, mask=valid, other=0)
        corner_hw = tl.load(pack + 5 * step + number, mask=valid, other=0)
        result += tl.where(h == 0, tl.where(w == 0, corner_00, 0) + tl.where(w == W - 1, corner_0w, 0), 0)
        result += tl.where(h == H - 1, tl.where(w == 0, corner_h0, 0) + tl.where(w == W - 1, corner_hw, 0), 0)
        for tap in tl.static_range(9):
            dy = 1 - tap // 3
            dx_ = 1 - tap % 3
            if tap != 4:
                shown = (h + dy >= 0) & (h + dy < H) & (w + dx_ >= 0) & (w + dx_ < W) & valid
                shifted = tl.load(scratch + at + (dy * stride_y + dx_ * stride_x), mask=shown, other=0)
            else:
                shifted = dz
            result += tl.load(stencil + channel % c * 9 + tap, mask=valid, other=0) * shifted
        tl.store(dx + offsets, result, mask=inside)
