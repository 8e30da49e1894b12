"""Kernels over contiguous feature maps; ``triton_common`` says what all have in common.

A warp takes 8 rows of 8 columns for each of its cells: lanes beside each other read what is beside each other, rows
stay in registers, and sums need no other warp.
"""

import triton
import triton.language as tl

from . import triton_common as common


@triton.jit(do_not_specialize=['B', 'C', 'H', 'W', 'kh', 'kw', 'nh', 'nw', 'ph', 'pw', 'ch', 'cw', 'number'])
def pool(
    x, gate, pooled, parts, B, C, H, W, kh, kw, nh, nw, ph, pw, ch, cw, number,
    ACC: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """x * a_h * a_w over the cells of whole windows, summed and divided by kh * kw: (B, cells, C).

    ``parts`` are the statistics of an image, a part a program; of use if windows are of one cell.
    """
    b = tl.program_id(1)
    cells = nh * ph * nw * pw
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    inside = t < C * cells
    channel = t // cells
    r = t % cells // (nw * pw)
    q = t % (nw * pw)
    h0 = common.start(r, kh, ph, ch)
    w0 = common.start(q, kw, pw, cw)
    height = tl.minimum(ch, (r // ph + 1) * kh - h0)
    width = tl.minimum(cw, (q // pw + 1) * kw - w0)
    rows = tl.arange(0, 8)
    i = rows[:, None, None]
    j = rows[None, None, :]
    plane = b * C + channel
    keep_h = (rows[:, None] < height[None, :]) & inside[None, :]
    keep_w = (rows[None, :] < width[:, None]) & inside[:, None]
    a_h = tl.load(gate + (plane * H + h0)[None, :] + rows[:, None], mask=keep_h, other=0)
    a_w = tl.load(gate + B * C * H + (plane * W + w0)[:, None] + rows[None, :], mask=keep_w, other=0)
    first = x + b.to(tl.int64) * (C * H * W)
    at = (channel * (H * W) + h0 * W + w0)[None, :, None] + (i * W + j)
    v = tl.load(first + at, mask=keep_h[:, :, None] & keep_w[None, :, :], other=0).to(ACC)
    total = tl.sum(tl.sum(v * a_h[:, :, None], 0) * a_w, 1) / (kh * kw)
    tl.store(pooled + b * C * cells + (t % cells) * C + channel, total, mask=inside)
    count = tl.minimum(BT, C * cells - tl.program_id(0) * BT)
    common.store_part(parts, b * 3 * number + tl.program_id(0), number, total, inside, count, ACC)


@triton.jit(do_not_specialize=['B', 'C4', 'H', 'W'])
def scale(x, gate, gate_c, out, B, C4, H, W, WHOLE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """x * a_h * a_w * g, four neighbours a thread; ``WHOLE``: rows are whole numbers of these, and W counts them."""
    C = C4 * 4
    b = tl.program_id(1)
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, 4)
    if WHOLE:
        h = v // W
        plane = h // H
        inside = (plane < C)[:, None]
        i = v * 4
        w = (v - h * W)[:, None] * 4 + lane[None, :]
        h = (h - plane * H)[:, None]
        plane = plane[:, None]
        width = W * 4
        per_row = tl.load(gate_c + b * C + plane, mask=inside, other=0) * tl.load(
            gate + (b * C + plane) * H + h, mask=inside, other=0
        )
        image = b.to(tl.int64) * (C * H * W) * 4
        keep = inside
    else:
        # Four numbers may end one row, or several, and begin another.
        i = v * 4
        h = (i // W)[:, None]
        w = (i[:, None] - h * W) + lane[None, :]
        plane = h // H
        h -= plane * H
        h += 0 * lane[None, :]
        plane += 0 * lane[None, :]
        for _ in tl.static_range(3):
            over = w >= W
            w = tl.where(over, w - W, w)
            h = tl.where(over, h + 1, h)
        for _ in tl.static_range(3):
            over = h >= H
            h = tl.where(over, h - H, h)
            plane = tl.where(over, plane + 1, plane)
        width = W
        keep = plane < C
        per_row = tl.load(gate_c + b * C + plane, mask=keep, other=0) * tl.load(
            gate + (b * C + plane) * H + h, mask=keep, other=0
        )
        image = b.to(tl.int64) * (C4 * H * W) * 4
        inside = (v < C4 * H * W)[:, None]
    at = image + i[:, None] + lane[None, :]
    a_w = tl.load(gate + B * C * H + (b * C + plane) * width + w, mask=keep, other=0)
    value = tl.load(x + at, mask=inside, other=0).to(ACC)
    tl.store(out + at, value * per_row * a_w, mask=inside)


@triton.jit(
    do_not_specialize=[
        'B', 'C', 'H', 'W', 'kh', 'kw', 'nh', 'nw', 'ph', 'pw', 'ch', 'cw', 'down', 'across', 'chunk', 'rows', 'steps',
    ]
)  # fmt: skip
def grad_sums(
    x, grad, gate, by_row, by_col, grad_gate, along_h, along_w,
    B, C, H, W, kh, kw, nh, nw, ph, pw, ch, cw, down, across, chunk, rows, steps,
    ACC: tl.constexpr, BP: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """All that backward needs of x and of the product of x with the gradient, in one read of both.

    by_row (steps, B, C, H): sums of G x a_w along rows. by_col (rows, B, C, W): sums of G x a_h along columns.
    grad_gate (rows, steps, B, C): sums of G x a_h a_w. along_h (H by cells across) and along_w (cells down by W), in
    the dtype of x: means of x a_w and x a_h over the width and height of each cell of a whole window.
    Means, as a sum of float16 values may be too large for float16.
    """
    pid = tl.program_id(0)
    step = pid % steps
    row = pid // steps % rows
    plane = pid // (steps * rows) * BP + tl.arange(0, BP)
    inside = plane < B * C
    lane = tl.arange(0, 8)
    q = step * BQ + tl.arange(0, BQ)
    w0 = common.start(q, kw, pw, cw)
    width = tl.minimum(common.end(q, kw, pw, cw, W), W) - w0
    keep_q = (q < across)[:, None] & (lane[None, :] < width[:, None])
    w = w0[:, None] + lane[None, :]
    keep_w = inside[:, None, None] & keep_q[None, :, :]
    at_w = plane[:, None, None] * W + w[None, :, :]
    a_w = tl.load(gate + B * C * H + at_w, mask=keep_w, other=0)
    top = plane.to(tl.int64)
    along = (nw * pw).to(tl.int64)
    per_column = tl.zeros([BP, BQ, 8], ACC)
    both = tl.zeros([BP], ACC)
    for r in range(row * chunk, tl.minimum((row + 1) * chunk, down)):
        h0 = common.start(r, kh, ph, ch)
        h1 = common.end(r, kh, ph, ch, H)
        height = h0 + lane
        keep_h = (height < h1)[:, None] & inside[None, :]
        at_h = plane[None, :] * H + height[:, None]
        a_h = tl.load(gate + at_h, mask=keep_h, other=0)[:, :, None, None]
        keep = keep_h[:, :, None, None] & keep_q[None, None, :, :]
        at = (top * (H * W))[None, :, None, None] + (height[:, None, None, None] * W + w[None, None, :, :])
        xv = tl.load(x + at, mask=keep, other=0).to(ACC)
        gx = tl.load(grad + at, mask=keep, other=0).to(ACC) * xv
        per_column += tl.sum(gx * a_h, 0)
        right = tl.sum(tl.sum(gx * a_w[None, :, :, :], 3), 2)
        tl.store(by_row + step * (B * C * H) + at_h, right, mask=keep_h)
        both += tl.sum(right * tl.reshape(a_h, [8, BP]), 0)
        whole = r < nh * ph
        tl.store(
            along_w + (top * (nh * ph * W) + r * W)[:, None, None] + w[None, :, :],
            tl.sum(xv * a_h, 0) / (h1 - h0),
            mask=keep_w & whole,
        )
        mean_h = tl.sum(xv * a_w[None, :, :, :], 3) / tl.maximum(width, 1).to(ACC)[None, None, :]
        tl.store(
            along_h + (top[None, :] * H + height[:, None])[:, :, None] * along + q[None, None, :],
            mean_h,
            mask=keep_h[:, :, None] & (q < nw * pw)[None, None, :] & whole,
        )
    tl.store(by_col + row * (B * C * W) + at_w, per_column, mask=keep_w)
    tl.store(grad_gate + (row * steps + step) * (B * C) + plane, both, mask=inside)


@triton.jit(do_not_specialize=['B', 'C', 'H', 'W', 'kh', 'kw', 'nh', 'nw', 'ph', 'pw', 'ch', 'cw', 'down', 'across'])
def grad_input(
    grad, gate, gate_c, spread, grad_mean, out,
    B, C, H, W, kh, kw, nh, nw, ph, pw, ch, cw, down, across, ACC: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """(G g + U) a_h a_w + what comes through the strips. A cell has one U."""
    b = tl.program_id(1)
    cells = down * across
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    channel = t // cells
    inside = channel < C
    r = t % cells // across
    q = t % across
    h0 = common.start(r, kh, ph, ch)
    w0 = common.start(q, kw, pw, cw)
    lane = tl.arange(0, 8)
    keep_h = (lane[:, None] < (common.end(r, kh, ph, ch, H) - h0)[None, :]) & inside[None, :]
    keep_w = (lane[None, :] < (common.end(q, kw, pw, cw, W) - w0)[:, None]) & inside[:, None]
    plane = b * C + channel
    at_h = (plane * H + h0)[None, :] + lane[:, None]
    at_w = B * C * H + (plane * W + w0)[:, None] + lane[None, :]
    a_h = tl.load(gate + at_h, mask=keep_h, other=0)[:, :, None]
    d_h = tl.load(grad_mean + at_h, mask=keep_h, other=0)[:, :, None]
    a_w = tl.load(gate + at_w, mask=keep_w, other=0)
    d_w = tl.load(grad_mean + at_w, mask=keep_w, other=0)
    g = tl.load(gate_c + plane, mask=inside, other=0)[:, None]
    of_window = inside & (r < nh * ph) & (q < nw * pw)
    u = tl.load(spread + (plane * nh + r // ph) * nw + q // pw, mask=of_window, other=0)[:, None]
    at = b.to(tl.int64) * (C * H * W) + (
        (channel * (H * W) + h0 * W + w0)[None, :, None] + (lane[:, None, None] * W + lane[None, None, :])
    )
    keep = keep_h[:, :, None] & keep_w[None, :, :]
    v = tl.load(grad + at, mask=keep, other=0).to(ACC)
    v = (v * (g * a_w)[None, :, :] + (u * a_w)[None, :, :]) * a_h + d_h + d_w[None, :, :]
    tl.store(out + at, v, mask=keep)
