"""Kernels over channels-last feature maps, four channels a thread; see ``triton_maps`` for what they compute."""

import triton
import triton.language as tl

from . import triton_common as common


@triton.jit(
    do_not_specialize=['B', 'C4', 'H', 'W', 'kh', 'kw', 'nh', 'nw', 'ph', 'pw', 'ch', 'cw', 'chunk', 'steps', 'blocks']
)
def pool(
    x, gate, pooled, B, C4, H, W, kh, kw, nh, nw, ph, pw, ch, cw, chunk, steps, blocks,
    ACC: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    C = C4 * 4
    pid = tl.program_id(0)
    b = tl.program_id(1)
    c = pid % blocks * BC + tl.arange(0, BC)
    step = pid // blocks % steps
    r = pid // (blocks * steps)
    across = nw * pw
    keep_c = c < C
    lane = tl.arange(0, 8)
    h = common.start(r, kh, ph, ch) + lane
    keep_h = (h < common.end(r, kh, ph, ch, H))[:, None] & keep_c[None, :]
    a_h = tl.load(gate + (b * H + h)[:, None] * C + c[None, :], mask=keep_h, other=0)
    image = b.to(tl.int64) * (H * W * C)
    for q in range(step * chunk, tl.minimum((step + 1) * chunk, across)):
        w = common.start(q, kw, pw, cw) + lane
        keep_w = (w < common.end(q, kw, pw, cw, W))[:, None] & keep_c[None, :]
        a_w = tl.load(gate + (B * H + b * W + w)[:, None] * C + c[None, :], mask=keep_w, other=0)
        at = image + ((h[:, None] * W + w[None, :])[:, :, None] * C + c[None, None, :])
        v = tl.load(x + at, mask=keep_h[:, None, :] & keep_w[None, :, :], other=0).to(ACC)
        total = tl.sum(tl.sum(v * a_h[:, None, :], 0) * a_w, 0) / (kh * kw)
        tl.store(pooled + ((b * nh * ph + r) * across + q) * C + c, total, mask=keep_c)


@triton.jit(do_not_specialize=['B', 'C4', 'H', 'W', 'blocks', 'steps'])
def scale(
    x, gate, gate_c, out, B, C4, H, W, blocks, steps,
    ACC: tl.constexpr, BC: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    C = C4 * 4
    pid = tl.program_id(0)
    b = tl.program_id(1)
    c = pid % blocks * BC + tl.arange(0, BC)
    w = pid // blocks % steps * BW + tl.arange(0, BW)
    h = pid // (blocks * steps) * BH + tl.arange(0, BH)
    keep_h = (h < H)[:, None] & (c < C)[None, :]
    keep_w = (w < W)[:, None] & (c < C)[None, :]
    g = tl.load(gate_c + b * C + c, mask=c < C, other=0)
    a_h = tl.load(gate + (b * H + h)[:, None] * C + c[None, :], mask=keep_h, other=0) * g[None, :]
    a_w = tl.load(gate + (B * H + b * W + w)[:, None] * C + c[None, :], mask=keep_w, other=0)
    at = b.to(tl.int64) * (H * W * C) + ((h[:, None] * W + w[None, :])[:, :, None] * C + c[None, None, :])
    keep = keep_h[:, None, :] & keep_w[None, :, :]
    v = tl.load(x + at, mask=keep, other=0).to(ACC)
    tl.store(out + at, v * a_h[:, None, :] * a_w[None, :, :], mask=keep)


@triton.jit(
    do_not_specialize=[
        'B', 'C4', 'H', 'W', 'kh', 'kw', 'nh', 'nw', 'ph', 'pw', 'ch', 'cw', 'down', 'across', 'chunk', 'rows', 'steps',
        'blocks',
    ]
)  # fmt: skip
def grad_sums(
    x, grad, gate, by_row, by_col, grad_gate, along_h, along_w,
    B, C4, H, W, kh, kw, nh, nw, ph, pw, ch, cw, down, across, chunk, rows, steps, blocks,
    ACC: tl.constexpr, BC: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    C = C4 * 4
    pid = tl.program_id(0)
    b = tl.program_id(1)
    c = pid % blocks * BC + tl.arange(0, BC)
    step = pid // blocks % steps
    row = pid // (blocks * steps)
    keep_c = c < C
    lane = tl.arange(0, 8)
    q = step * BQ + tl.arange(0, BQ)
    w0 = common.start(q, kw, pw, cw)
    width = common.end(q, kw, pw, cw, W) - w0
    keep_q = (q < across)[:, None] & (lane[None, :] < width[:, None])
    w = w0[:, None] + lane[None, :]
    keep = keep_q[:, :, None] & keep_c[None, None, :]
    at_w = (b * W + w)[:, :, None] * C + c[None, None, :]
    a_w = tl.load(gate + B * H * C + at_w, mask=keep, other=0)
    span = 1 / tl.maximum(width, 1).to(ACC)
    image = b.to(tl.int64) * (H * W * C)
    image_h = b.to(tl.int64) * (H * nw * pw * C)
    image_w = b.to(tl.int64) * (nh * ph * W * C)
    per_column = tl.zeros([BQ, 8, BC], ACC)
    both = tl.zeros([BC], ACC)
    for r in range(row * chunk, tl.minimum((row + 1) * chunk, down)):
        h0 = common.start(r, kh, ph, ch)
        h1 = common.end(r, kh, ph, ch, H)
        whole = r < nh * ph
        mean_w = tl.zeros([BQ, 8, BC], ACC)
        for h in range(h0, h1):
            at = image + ((h * W + w)[:, :, None] * C + c[None, None, :])
            at_h = (b * H + h) * C + c
            a_h = tl.load(gate + at_h, mask=keep_c, other=0)
            xv = tl.load(x + at, mask=keep, other=0).to(ACC)
            gx = tl.load(grad + at, mask=keep, other=0).to(ACC) * xv
            per_column += gx * a_h[None, None, :]
            mean_w += xv * a_h[None, None, :]
            right = tl.sum(tl.sum(gx * a_w, 1), 0)
            tl.store(by_row + step * (B * H * C) + at_h, right, mask=keep_c)
            both += right * a_h
            tl.store(
                along_h + image_h + (h * nw * pw + q)[:, None] * C + c[None, :],
                tl.sum(xv * a_w, 1) * span[:, None],
                mask=keep_c[None, :] & (q < nw * pw)[:, None] & whole,
            )
        tl.store(
            along_w + image_w + (r * W + w)[:, :, None] * C + c[None, None, :], mean_w / (h1 - h0), mask=keep & whole
        )
    tl.store(by_col + row * (B * W * C) + at_w, per_column, mask=keep)
    tl.store(grad_gate + ((row * steps + step) * B + b) * C + c, both, mask=keep_c)


@triton.jit(
    do_not_specialize=['B', 'C4', 'H', 'W', 'kh', 'kw', 'nh', 'nw', 'ph', 'pw', 'ch', 'cw', 'down', 'across', 'blocks']
)
def grad_input(
    grad, gate, gate_c, spread, grad_mean, out,
    B, C4, H, W, kh, kw, nh, nw, ph, pw, ch, cw, down, across, blocks, ACC: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    C = C4 * 4
    pid = tl.program_id(0)
    b = tl.program_id(1)
    c = pid % blocks * BC + tl.arange(0, BC)
    q = pid // blocks % across
    r = pid // (blocks * across)
    keep_c = c < C
    h = common.start(r, kh, ph, ch) + tl.arange(0, 8)
    w = common.start(q, kw, pw, cw) + tl.arange(0, 8)
    keep_h = (h < common.end(r, kh, ph, ch, H))[:, None] & keep_c[None, :]
    keep_w = (w < common.end(q, kw, pw, cw, W))[:, None] & keep_c[None, :]
    at_h = (b * H + h)[:, None] * C + c[None, :]
    at_w = (B * H + b * W + w)[:, None] * C + c[None, :]
    a_h = tl.load(gate + at_h, mask=keep_h, other=0)[:, None, :]
    d_h = tl.load(grad_mean + at_h, mask=keep_h, other=0)[:, None, :]
    a_w = tl.load(gate + at_w, mask=keep_w, other=0)
    d_w = tl.load(grad_mean + at_w, mask=keep_w, other=0)
    g = tl.load(gate_c + b * C + c, mask=keep_c, other=0)[None, :]
    of_window = keep_c & (r < nh * ph) & (q < nw * pw)
    u = tl.load(spread + ((b * nh + r // ph) * nw + q // pw) * C + c, mask=of_window, other=0)[None, :]
    at = b.to(tl.int64) * (H * W * C) + ((h[:, None] * W + w[None, :])[:, :, None] * C + c[None, None, :])
    keep = keep_h[:, None, :] & keep_w[None, :, :]
    v = tl.load(grad + at, mask=keep, other=0).to(ACC)
    v = (v * (g * a_w)[None, :, :] + (u * a_w)[None, :, :]) * a_h + d_h + d_w[None, :, :]
    tl.store(out + at, v, mask=keep)
