"""Kernels over contiguous feature maps; ``triton_common`` says what all have in common.

For sums, a warp takes 8 rows of 8 columns for each of its cells: lanes beside each other read what is beside each
other, rows stay in registers, and no other warp is waited for. It goes down some rows of cells, as to find out where
the cells are takes many divisions.
"""

import triton
import triton.language as tl

from . import triton_common as common


@triton.jit(
    do_not_specialize=['B', 'C', 'H', 'W', 'kh', 'kw', 'nh', 'nw', 'ph', 'pw', 'ch', 'cw', 'chunk', 'rows', 'steps']
)
def pool(
    x, gate, pooled, B, C, H, W, kh, kw, nh, nw, ph, pw, ch, cw, chunk, rows, steps,
    ACC: tl.constexpr, BP: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """x * a_h * a_w over the cells of whole windows, summed and divided by kh * kw: (B, cells, C)."""
    pid = tl.program_id(0)
    step = pid % steps
    row = pid // steps % rows
    plane = pid // (steps * rows) * BP + tl.arange(0, BP)
    inside = plane < B * C
    b = plane // C
    lane = tl.arange(0, 8)
    across, down = nw * pw, nh * ph
    q = step * BQ + tl.arange(0, BQ)
    w0 = common.start(q, kw, pw, cw)
    width = common.end(q, kw, pw, cw, W) - w0
    keep_q = (q < across)[:, None] & (lane[None, :] < width[:, None])
    w = w0[:, None] + lane[None, :]
    keep_w = inside[:, None, None] & keep_q[None, :, :]
    a_w = tl.load(gate + B * C * H + plane[:, None, None] * W + w[None, :, :], mask=keep_w, other=0)
    top = plane.to(tl.int64) * (H * W)
    for r in range(row * chunk, tl.minimum((row + 1) * chunk, down)):
        height = common.start(r, kh, ph, ch) + lane
        keep_h = (height < common.end(r, kh, ph, ch, H))[:, None] & inside[None, :]
        a_h = tl.load(gate + plane[None, :] * H + height[:, None], mask=keep_h, other=0)
        at = top[None, :, None, None] + (height[:, None, None, None] * W + w[None, None, :, :])
        keep = keep_h[:, :, None, None] & keep_q[None, None, :, :]
        v = tl.load(x + at, mask=keep, other=0).to(ACC)
        total = tl.sum(tl.sum(v * a_h[:, :, None, None], 0) * a_w, 2) / (kh * kw)
        to = ((b * down + r) * across)[:, None] + q[None, :]
        tl.store(pooled + to * C + (plane - b * C)[:, None], total, mask=inside[:, None] & (q < across)[None, :])


@triton.jit
def _four(C, H, W, WHOLE: tl.constexpr, BLOCK: tl.constexpr):
    """Four neighbours in memory for each of BLOCK lanes: their place in the image, channel, row and column.

    ``WHOLE``: rows are whole numbers of these, W counts them, and channel and row have one column. Else four may end
    one row, or several, and begin another.
    """
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, 4)
    i = v[:, None] * 4 + lane[None, :]
    if WHOLE:
        h = v // W
        c = h // H
        w = (v - h * W)[:, None] * 4 + lane[None, :]
        return i, c[:, None], (h - c * H)[:, None], w
    else:
        h = (v * 4 // W)[:, None]
        w = (v[:, None] * 4 - h * W) + lane[None, :]
        c = h // H + 0 * lane[None, :]
        h = h - c * H
        for _ in tl.static_range(3):
            over = w >= W
            w = tl.where(over, w - W, w)
            h = tl.where(over, h + 1, h)
        for _ in tl.static_range(3):
            over = h >= H
            h = tl.where(over, h - H, h)
            c = tl.where(over, c + 1, c)
        return i, c, h, w


@triton.jit
def _there(C4, H, W, WHOLE: tl.constexpr, BLOCK: tl.constexpr):
    """Which of the fours are in the image, all of each or none."""
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    return (v < (C4 * 4 * H * W if WHOLE else C4 * H * W))[:, None]


@triton.jit(do_not_specialize=['B', 'C4', 'H', 'W'])
def scale(x, gate, gate_c, out, B, C4, H, W, WHOLE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """x * a_h * a_w * g."""
    C = C4 * 4
    b = tl.program_id(1)
    i, c, h, w = _four(C, H, W, WHOLE, BLOCK)
    there = _there(C4, H, W, WHOLE, BLOCK)
    width = W * 4 if WHOLE else W
    plane = b * C + c
    keep = c < C
    at = b.to(tl.int64) * (C4 * H * width) * 4 + i
    value = tl.load(x + at, mask=there, other=0).to(ACC)
    factor = tl.load(gate_c + plane, mask=keep, other=0) * tl.load(gate + plane * H + h, mask=keep, other=0)
    a_w = tl.load(gate + B * C * H + plane * width + w, mask=keep, other=0)
    tl.store(out + at, value * factor * a_w, mask=there)


@triton.jit
def _window(p, size):
    """Of row or column p, the window: exact below four million."""
    return ((p.to(tl.float32) + 0.5) * (1 / size.to(tl.float32))).to(tl.int32)


@triton.jit(do_not_specialize=['B', 'C4', 'H', 'W', 'kh', 'kw', 'nh', 'nw'])
def grad_input(
    grad, gate, gate_c, spread, grad_mean, out, B, C4, H, W, kh, kw, nh, nw,
    WHOLE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(G g + U) a_h a_w + what comes through the strips; U is that of the window."""
    C = C4 * 4
    b = tl.program_id(1)
    i, c, h, w = _four(C, H, W, WHOLE, BLOCK)
    there = _there(C4, H, W, WHOLE, BLOCK)
    width = W * 4 if WHOLE else W
    plane = b * C + c
    keep = c < C
    at = b.to(tl.int64) * (C4 * H * width) * 4 + i
    v = tl.load(grad + at, mask=there, other=0).to(ACC)
    g = tl.load(gate_c + plane, mask=keep, other=0)
    a_h = tl.load(gate + plane * H + h, mask=keep, other=0)
    d_h = tl.load(grad_mean + plane * H + h, mask=keep, other=0)
    at_w = B * C * H + plane * width + w
    a_w = tl.load(gate + at_w, mask=keep, other=0)
    d_w = tl.load(grad_mean + at_w, mask=keep, other=0)
    row, column = _window(h, kh), _window(w, kw)
    u = tl.load(spread + (plane * nh + row) * nw + column, mask=keep & (row < nh) & (column < nw), other=0)
    tl.store(out + at, (v * g + u) * (a_h * a_w) + (d_h + d_w), mask=there)


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
