"""The GPU kernels of SCSA; ``triton.py`` launches them.

Names in all of them: B, C, H, W is the shape of x. A kernel that reads x takes its width as ``WV`` times the constant
``VEC``, so that the compiler sees how far rows are aligned and loads several elements at once. ``D`` is C / 4.

A window of the pool is cut into cells, ``parts`` along a side, of at most ``cell`` rows or columns. Cells do not cross
windows; those of the rows and columns past the last whole window are numbered on after the whole ones.

Buffers of strips hold (B, C, H) and then (B, C, W). What several programs contribute to a sum is written beside each
other and added by the next kernel in a fixed order, so that results are the same from run to run.
"""

import triton
import triton.language as tl

EPS = tl.constexpr(1e-5)


@triton.jit
def _sigmoid(z, UNIT: tl.constexpr):
    a = 1 / (1 + tl.exp(-z))
    return 2 * a if UNIT else a


@triton.jit
def _sigmoid_slope(a, UNIT: tl.constexpr):
    """Derivative of ``_sigmoid`` from its value."""
    return a * (1 - a / 2) if UNIT else a * (1 - a)


@triton.jit
def _place(c, h, w, C, H, W, CHANNELS_LAST: tl.constexpr):
    """Offset of an element in its image."""
    return (h * W + w) * C + c if CHANNELS_LAST else (c * H + h) * W + w


@triton.jit
def _split(pid, steps, rows, blocks):
    """Number of a program as (column step, row group, block of channels, image)."""
    step = pid % steps
    pid = pid // steps
    row = pid % rows
    pid = pid // rows
    return step, row, pid % blocks, pid // blocks


@triton.jit
def _start(q, window, parts, cell):
    return q // parts * window + q % parts * cell


@triton.jit
def _end(q, window, parts, cell, length):
    return tl.minimum(tl.minimum(_start(q, window, parts, cell) + cell, (q // parts + 1) * window), length)


@triton.jit(do_not_specialize=['B', 'H', 'WV', 'chunk', 'blocks', 'rows', 'steps'])
def strips(
    x, by_row, by_col, B, C, H, WV, chunk, blocks, rows, steps,
    VEC: tl.constexpr, CHANNELS_LAST: tl.constexpr, ACC: tl.constexpr,
    BC: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Sums along rows, (steps, B, C, H), and along columns, (rows, B, C, W)."""
    W = WV * VEC
    step, row, block, b = _split(tl.program_id(0), steps, rows, blocks)
    channel = block * BC + tl.arange(0, BC)
    width = step * BW + tl.arange(0, BW)
    c, w = channel[:, None, None], width[None, None, :]
    image = x + b.to(tl.int64) * (C * H * W)
    last = tl.minimum((row + 1) * chunk, H)
    down = tl.zeros([BC, BH, BW], ACC)
    for h0 in range(row * chunk, last, BH):
        height = h0 + tl.arange(0, BH)
        h = height[None, :, None]
        place = _place(c, h, w, C, H, W, CHANNELS_LAST)
        v = tl.load(image + place, mask=(c < C) & (h < last) & (w < W), other=0).to(ACC)
        down += v
        to = ((step * B + b) * C + channel[:, None]) * H + height[None, :]
        tl.store(by_row + to, tl.sum(v, 2), mask=(channel[:, None] < C) & (height[None, :] < last))
    to = ((row * B + b) * C + channel[:, None]) * W + width[None, :]
    tl.store(by_col + to, tl.sum(down, 1), mask=(channel[:, None] < C) & (width[None, :] < W))


@triton.jit
def _convolve(src, weight, bias, c, p, D, L, k, KMAX: tl.constexpr, ACC: tl.constexpr):
    """Depthwise convolution of ``src`` (D, L) at channels ``c`` (BC, 1) and positions ``p`` (1, BL)."""
    z = tl.load(bias + c, mask=c < D, other=0).to(ACC)
    for t in tl.static_range(KMAX):
        at = p + t - k // 2
        here = (c < D) & (t < k)
        tap = tl.load(weight + c * k + t, mask=here, other=0).to(ACC)
        z += tap * tl.load(src + c * L + at, mask=here & (at >= 0) & (at < L), other=0)
    return z


@triton.jit
def _group(pid, weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3, H, W,
           K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, K3: tl.constexpr):  # fmt: skip
    """What is particular to a program's (image, direction, group)."""
    group = pid % 4
    direction = pid // 4 % 2
    weight, bias = weight0, bias0
    if group == 1:
        weight, bias = weight1, bias1
    if group == 2:
        weight, bias = weight2, bias2
    if group == 3:
        weight, bias = weight3, bias3
    k = tl.where(group == 0, K0, tl.where(group == 1, K1, tl.where(group == 2, K2, K3)))
    return group, direction, pid // 8, weight, bias, k, tl.where(direction == 0, H, W)


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
    group, direction, b, weight, bias, k, L = _group(
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
                z = _convolve(means, weight, bias, c, p, D, L, k, KMAX, ACC)
                tl.store(gate + c * L + p, z, mask=inside)
                number = (tl.minimum(BC, D - c0) * tl.minimum(BL, L - l0)).to(ACC)
                middle = tl.sum(tl.where(inside, z, 0)) / number
                off = tl.where(inside, z - middle, 0)
                step = middle - mean
                spread += tl.sum(off * off) + step * step * (seen * number / (seen + number))
                seen += number
                mean += step * (number / seen)
        rstd = 1 / tl.sqrt(spread / seen + EPS)
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
                z = _convolve(means, weight, bias, c, p, D, L, k, KMAX, ACC)
            else:
                z = tl.load(gate + c * L + p, mask=inside, other=0)
            tl.store(gate + c * L + p, _sigmoid((z - mean) * rstd * scale + shift, UNIT), mask=inside)


@triton.jit
def _columns(q0, W, window, parts, cell, CHANNELS_LAST: tl.constexpr, BQ: tl.constexpr, KW: tl.constexpr,
             BW: tl.constexpr):  # fmt: skip
    """The columns (BW) of BQ cells from q0 on, and which of them are there.

    In a contiguous map one after the other, for wide loads. In a channels-last map each cell has KW, some not there.
    """
    lane = tl.arange(0, BW)
    if CHANNELS_LAST:
        q = q0 + lane // KW
        column = _start(q, window, parts, cell) + lane % KW
        inside = column < _end(q, window, parts, cell, W)
    else:
        column = _start(q0, window, parts, cell) + lane
        # Not the smaller of the two limits, as the compiler must see that each is a multiple of what it loads at once.
        inside = (column < _start(q0 + BQ, window, parts, cell)) & (column < W)
    return column, inside


@triton.jit
def _cell_sums(values, q0, W, window, parts, cell, CHANNELS_LAST: tl.constexpr, BR: tl.constexpr, BQ: tl.constexpr,
               KW: tl.constexpr, BW: tl.constexpr):  # fmt: skip
    """Sums (BR, BQ) over the columns of each cell. Values (BR, BW) as in ``_columns``, zero where nothing is there."""
    if not CHANNELS_LAST:
        lane = tl.arange(0, BQ * KW)
        q = q0 + lane // KW
        column = _start(q, window, parts, cell) + lane % KW
        inside = column < _end(q, window, parts, cell, W)
        source = tl.where(inside, column - _start(q0, window, parts, cell), 0)
        values = tl.gather(values, tl.broadcast_to(source[None, :], [BR, BQ * KW]), 1)
        values = tl.where(inside[None, :], values, 0)
    return tl.sum(tl.reshape(values, [BR, BQ, KW]), 2)


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
    step, row, block, b = _split(tl.program_id(0), steps, nh, blocks)
    channel = block * BC + tl.arange(0, BC)
    keep_c = (channel < C)[:, None]
    plane = (b * C + channel)[:, None]
    c = channel[:, None, None]
    image = x + b.to(tl.int64) * (C * H * W)
    total = tl.zeros([BC, BQ], ACC)
    for j in range(pw):
        q0 = step * BQ * pw + j
        width, within = _columns(q0, W, kw, pw, cw, CHANNELS_LAST, BQ, KW, BW)
        a_w = tl.load(gate + B * C * H + plane * W + width[None, :], mask=keep_c & within[None, :], other=0)
        down = tl.zeros([BC, BW], ACC)
        for i in range(ph):
            h0 = row * kh + i * ch
            last = tl.minimum(h0 + ch, (row + 1) * kh)
            height = h0 + tl.arange(0, KH)
            a_h = tl.load(gate + plane * H + height[None, :], mask=keep_c & (height < last)[None, :], other=0)
            h = height[None, :, None]
            v = tl.load(
                image + _place(c, h, width[None, None, :], C, H, W, CHANNELS_LAST),
                mask=(c < C) & (h < last) & within[None, None, :],
                other=0,
            ).to(ACC)
            down += tl.sum(v * a_h[:, :, None], 1)
        total += _cell_sums(down * a_w, q0, nw * kw, kw, pw, cw, CHANNELS_LAST, BC, BQ, KW, BW)
    q = (step * BQ + tl.arange(0, BQ))[None, :]
    tl.store(pooled + (plane * nh + row) * nw + q, total / (kh * kw), mask=keep_c & (q < nw))


@triton.jit
def _scale(weight, bias, c, keep, HAS_BIAS: tl.constexpr, ACC: tl.constexpr):
    """Factor and offset of a per-channel scaling."""
    factor = tl.load(weight + c, mask=keep, other=0).to(ACC)
    if HAS_BIAS:
        return factor, tl.load(bias + c, mask=keep, other=0).to(ACC)
    else:
        return factor, tl.zeros_like(factor)


@triton.jit
def _gram(pooled, mean, c, e, keep_c, keep_e, n, BN: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
          ACC: tl.constexpr):  # fmt: skip
    """Products of centred channels c with e, summed over positions, (BC, BE), and the sums of each."""
    product = tl.zeros([BC, BE], ACC)
    sum_c = tl.zeros([BC], ACC)
    sum_e = tl.zeros([BE], ACC)
    for n0 in range(0, n, BN):
        p = n0 + tl.arange(0, BN)
        inside = (p < n)[None, :]
        left = keep_c[:, None] & inside
        right = keep_e[:, None] & inside
        of_c = tl.where(left, tl.load(pooled + c[:, None] * n + p[None, :], mask=left, other=0) - mean, 0)
        of_e = tl.where(right, tl.load(pooled + e[:, None] * n + p[None, :], mask=right, other=0) - mean, 0)
        # Full products: TF32 would be a thousand times less exact than the rest.
        product = tl.dot(of_c, tl.trans(of_e), product, input_precision='ieee', out_dtype=ACC)
        sum_c += tl.sum(of_c, 1)
        sum_e += tl.sum(of_e, 1)
    return product, sum_c, sum_e


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
    rstd = 1 / tl.sqrt(tl.maximum(tl.sum(second) / total - step * step, 0) + EPS)
    if pid % (per_head * (C // d)) == 0:
        tl.store(norm_stats + 2 * b, mean)
        tl.store(norm_stats + 2 * b + 1, rstd)

    in_head = block * BC + tl.arange(0, BC)
    c = head * d + in_head
    keep_c = in_head < d
    gamma_c, beta_c = _scale(gamma, beta, c, keep_c, True, ACC)
    q_c, q0_c = _scale(q, q_bias, c, keep_c, BIAS_Q, ACC)
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
        product, sum_c, sum_e = _gram(pooled, mean, c, e, keep_c, keep_e, n, BN, BC, BE, ACC)
        product *= rstd * rstd
        sum_c *= rstd
        sum_e *= rstd
        gamma_e, beta_e = _scale(gamma, beta, e, keep_e, True, ACC)
        k_e, k0_e = _scale(k, k_bias, e, keep_e, BIAS_K, ACC)
        v_e, v0_e = _scale(v, v_bias, e, keep_e, BIAS_V, ACC)
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
    tl.store(at, _sigmoid(result, UNIT), mask=keep_c)
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
    step, row, block, b = _split(tl.program_id(0), steps, rows, blocks)
    c = (block * BC + tl.arange(0, BC))[:, None, None]
    h = (row * BH + tl.arange(0, BH))[None, :, None]
    w = (step * BW + tl.arange(0, BW))[None, None, :]
    keep_c, keep_h, keep_w = c < C, h < H, w < W
    place = b.to(tl.int64) * (C * H * W) + _place(c, h, w, C, H, W, CHANNELS_LAST)
    inside = keep_c & keep_h & keep_w
    v = tl.load(x + place, mask=inside, other=0).to(ACC)
    plane = b * C + c
    g = tl.load(gate_c + plane, mask=keep_c, other=0)
    a_h = tl.load(gate + plane * H + h, mask=keep_c & keep_h, other=0)
    a_w = tl.load(gate + B * C * H + plane * W + w, mask=keep_c & keep_w, other=0)
    tl.store(out + place, v * (a_h * g) * a_w, mask=inside)


@triton.jit(
    do_not_specialize=['B', 'H', 'WV', 'kh', 'kw', 'nh', 'nw', 'ch', 'cw', 'cells', 'chunk', 'blocks', 'rows', 'steps']
)
def grad_sums(
    x, grad, gate, by_row, by_col, grad_gate, along_h, along_w,
    B, C, H, WV, kh, kw, nh, nw, ph, pw, ch, cw, cells, chunk, blocks, rows, steps,
    VEC: tl.constexpr, CHANNELS_LAST: tl.constexpr, ACC: tl.constexpr,
    BC: tl.constexpr, KH: tl.constexpr, BQ: tl.constexpr, KW: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """All that backward needs of x and of the product of x with the gradient, in one read of both.

    by_row (steps, B, C, H): sums of G x a_w along rows. by_col (rows, B, C, W): sums of G x a_h along columns.
    grad_gate (rows, steps, B, C): sums of G x a_h a_w. along_h (H by cells across) and along_w (cells down by W), in
    the dtype and order of x: means of x a_w and x a_h over the width and height of each cell of a whole window.
    Means, as a sum of float16 values may be too large for float16.
    """
    W = WV * VEC
    step, row, block, b = _split(tl.program_id(0), steps, rows, blocks)
    channel = block * BC + tl.arange(0, BC)
    keep_c = (channel < C)[:, None]
    plane = (b * C + channel)[:, None]
    q0 = step * BQ
    q = q0 + tl.arange(0, BQ)
    span = 1 / tl.maximum(_end(q, kw, pw, cw, W) - _start(q, kw, pw, cw), 1).to(ACC)
    width, within = _columns(q0, W, kw, pw, cw, CHANNELS_LAST, BQ, KW, BW)
    c = channel[:, None, None]
    w = width[None, None, :]
    image = b.to(tl.int64) * (C * H * W)
    image_h = along_h + b.to(tl.int64) * (C * H * nw * pw)
    image_w = along_w + b.to(tl.int64) * (C * nh * ph * W)
    keep_w = keep_c & within[None, :]
    at_w = plane * W + width[None, :]
    a_w = tl.load(gate + B * C * H + at_w, mask=keep_w, other=0)
    down = tl.zeros([BC, BW], ACC)
    both = tl.zeros([BC], ACC)
    for r in range(row * chunk, tl.minimum((row + 1) * chunk, cells)):
        h0 = _start(r, kh, ph, ch)
        h1 = _end(r, kh, ph, ch, H)
        height = h0 + tl.arange(0, KH)
        h = height[None, :, None]
        keep_h = keep_c & (height < h1)[None, :]
        at_h = plane * H + height[None, :]
        a_h = tl.load(gate + at_h, mask=keep_h, other=0)
        inside = (c < C) & (h < h1) & within[None, None, :]
        place = image + _place(c, h, w, C, H, W, CHANNELS_LAST)
        xv = tl.load(x + place, mask=inside, other=0).to(ACC)
        gx = tl.load(grad + place, mask=inside, other=0).to(ACC) * xv
        down += tl.sum(gx * a_h[:, :, None], 1)
        right = tl.sum(gx * a_w[:, None, :], 2)
        tl.store(by_row + step * (B * C * H) + at_h, right, mask=keep_h)
        both += tl.sum(right * a_h, 1)
        whole = r < nh * ph
        mean_w = tl.sum(xv * a_h[:, :, None], 1) / (h1 - h0)
        tl.store(
            image_w + _place(channel[:, None], r, width[None, :], C, nh * ph, W, CHANNELS_LAST),
            mean_w,
            mask=keep_w & whole,
        )
        mean_h = tl.reshape(xv * a_w[:, None, :], [BC * KH, BW])
        mean_h = _cell_sums(mean_h, q0, W, kw, pw, cw, CHANNELS_LAST, BC * KH, BQ, KW, BW) * span[None, :]
        tl.store(
            image_h + _place(c, h, q[None, None, :], C, H, nw * pw, CHANNELS_LAST),
            tl.reshape(mean_h, [BC, KH, BQ]),
            mask=keep_h[:, :, None] & (q < nw * pw)[None, None, :] & whole,
        )
    tl.store(by_col + row * (B * C * W) + at_w, down, mask=keep_w)
    tl.store(grad_gate + (row * steps + step) * (B * C) + plane, both[:, None], mask=keep_c)


@triton.jit
def _added(source, number, stride, c, keep, BC: tl.constexpr, ACC: tl.constexpr):
    """Sum of what ``number`` programs found for channels c."""
    total = tl.zeros([16, BC], ACC)
    for i0 in range(0, number, 16):
        i = i0 + tl.arange(0, 16)[:, None]
        total += tl.load(source + i * stride + c[None, :], mask=(i < number) & keep[None, :], other=0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=['B', 'n', 'd', 'per_head', 'number', 'size', 'norms'])
def attend_backward(
    pooled, norm_stats, logits, grad_gate, grad_y, offset, sums, gamma, beta, q, q_bias, k, k_bias, v, v_bias,
    B, C, n, d, per_head, number, size, norms,
    BIAS_Q: tl.constexpr, BIAS_K: tl.constexpr, BIAS_V: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
    BC: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """From the gradient of the channel gates, ``number`` summands each, to that of the normalised pooled map.

    The latter is grad_y (B, C, n) + offset (B, C). Gradients of norm, q, k and v for each image go to ``sums``
    (images, size), norm's weight at ``norms`` + 4 C. A program takes BC channels, both as queries and as keys of all
    others; both directions, the parameters and the norm need the same products Y_c . Y_e.
    """
    pid = tl.program_id(0)
    block = pid % per_head
    head = pid // per_head % (C // d)
    b = pid // (per_head * (C // d))
    pooled += b * C * n
    grad_y += b * C * n
    logits += b * C
    grad_gate += b * C
    mean = tl.load(norm_stats + 2 * b)
    rstd = tl.load(norm_stats + 2 * b + 1)
    in_head = block * BC + tl.arange(0, BC)
    c = head * d + in_head
    keep_c = in_head < d
    gamma_c, beta_c = _scale(gamma, beta, c, keep_c, True, ACC)
    q_c, q0_c = _scale(q, q_bias, c, keep_c, BIAS_Q, ACC)
    k_c, k0_c = _scale(k, k_bias, c, keep_c, BIAS_K, ACC)
    v_c, v0_c = _scale(v, v_bias, c, keep_c, BIAS_V, ACC)
    a_c = gamma_c * q_c
    b_c = beta_c * q_c + q0_c
    d_c = gamma_c * k_c
    shift_c = beta_c * k_c + k0_c
    gate_c = tl.load(logits + c, mask=keep_c, other=0)
    result_c = tl.load(logits + B * C + c, mask=keep_c, other=0)
    log_c = tl.load(logits + 2 * B * C + c, mask=keep_c, other=0)
    grad_c = _added(grad_gate, number, B * C, c, keep_c, BC, ACC) * _sigmoid_slope(gate_c, UNIT)
    root = 1 / tl.sqrt(tl.zeros([], ACC) + d)

    constant = tl.zeros([BC], ACC)
    grad_v = tl.zeros([BC], ACC)
    grad_beta = tl.zeros([BC], ACC)
    grad_gamma = tl.zeros([BC], ACC)
    grad_q = tl.zeros([BC], ACC)
    grad_q0 = tl.zeros([BC], ACC)
    grad_k = tl.zeros([BC], ACC)
    grad_k0 = tl.zeros([BC], ACC)
    mean_c = tl.zeros([BC], ACC)
    for e0 in range(0, d, BE):
        e_in = e0 + tl.arange(0, BE)
        e = head * d + e_in
        keep_e = e_in < d
        product, sum_c, sum_e = _gram(pooled, mean, c, e, keep_c, keep_e, n, BN, BC, BE, ACC)
        product *= rstd * rstd
        sum_c *= rstd
        sum_e *= rstd
        mean_c = sum_c / n
        gamma_e, beta_e = _scale(gamma, beta, e, keep_e, True, ACC)
        q_e, q0_e = _scale(q, q_bias, e, keep_e, BIAS_Q, ACC)
        k_e, k0_e = _scale(k, k_bias, e, keep_e, BIAS_K, ACC)
        v_e, v0_e = _scale(v, v_bias, e, keep_e, BIAS_V, ACC)
        a_e = gamma_e * q_e
        b_e = beta_e * q_e + q0_e
        d_e = gamma_e * k_e
        shift_e = beta_e * k_e + k0_e
        gate_e = tl.load(logits + e, mask=keep_e, other=0)
        result_e = tl.load(logits + B * C + e, mask=keep_e, other=0)
        log_e = tl.load(logits + 2 * B * C + e, mask=keep_e, other=0)
        grad_e = _added(grad_gate, number, B * C, e, keep_e, BE, ACC) * _sigmoid_slope(gate_e, UNIT)
        keep = keep_c[:, None] & keep_e[None, :]

        # Sums over positions: of keys and queries e, and of these times Y_c.
        of_keys = (d_e * sum_e + shift_e * n)[None, :]
        of_queries = (a_e * sum_e + b_e * n)[None, :]
        with_keys = d_e[None, :] * product + shift_e[None, :] * sum_c[:, None]
        with_queries = a_e[None, :] * product + b_e[None, :] * sum_c[:, None]

        # c asks, e answers.
        score = (a_c[:, None] * with_keys + b_c[:, None] * of_keys) * root
        share = tl.where(keep, tl.exp(score - log_c[:, None]), 0)
        mean_v = v_e * (gamma_e * (sum_e / n) + beta_e) + v0_e
        asks = share * (grad_c * root)[:, None] * (mean_v[None, :] - result_c[:, None])
        # e asks, c answers.
        score = (d_c[:, None] * with_queries + shift_c[:, None] * of_queries) * root
        share = tl.where(keep, tl.exp(score - log_e[None, :]), 0) * grad_e[None, :]
        mean_v = v_c * (gamma_c * mean_c + beta_c) + v0_c
        answers = share * root * (mean_v[:, None] - result_e[None, :])

        grad_v += tl.sum(share, 1)
        grad_q += tl.sum(asks * (gamma_c[:, None] * with_keys + beta_c[:, None] * of_keys), 1)
        grad_q0 += tl.sum(asks * of_keys, 1)
        grad_k += tl.sum(answers * (gamma_c[:, None] * with_queries + beta_c[:, None] * of_queries), 1)
        grad_k0 += tl.sum(answers * of_queries, 1)
        asks *= q_c[:, None]
        answers *= k_c[:, None]
        factor = asks * d_e[None, :] + answers * a_e[None, :]
        constant += tl.sum(asks * shift_e[None, :] + answers * b_e[None, :], 1)
        grad_beta += tl.sum(factor * sum_e[None, :], 1)
        grad_gamma += tl.sum(factor * product, 1)
        factor *= rstd
        for n0 in range(0, n, BN):
            p = n0 + tl.arange(0, BN)
            inside = (p < n)[None, :]
            right = keep_e[:, None] & inside
            of_e = tl.where(right, tl.load(pooled + e[:, None] * n + p[None, :], mask=right, other=0) - mean, 0)
            at = c[:, None] * n + p[None, :]
            left = keep_c[:, None] & inside
            # What the earlier keys gave, written by this program.
            before = tl.load(grad_y + at, mask=left & (e0 > 0), other=0)
            tl.store(grad_y + at, tl.dot(factor, of_e, before, input_precision='ieee', out_dtype=ACC), mask=left)
        tl.debug_barrier()
    constant += grad_v * v_c / n
    tl.store(offset + b * C + c, constant, mask=keep_c)
    grad_beta += constant * n
    grad_gamma += constant * (mean_c * n)
    sums += b * size + norms + 4 * C + c
    tl.store(sums, grad_gamma, mask=keep_c)
    tl.store(sums + C, grad_beta, mask=keep_c)
    tl.store(sums + 2 * C, grad_q, mask=keep_c)
    if BIAS_Q:
        tl.store(sums + 3 * C, grad_q0, mask=keep_c)
    sums += (3 + BIAS_Q) * C
    tl.store(sums, grad_k, mask=keep_c)
    if BIAS_K:
        tl.store(sums + C, grad_k0, mask=keep_c)
    sums += (1 + BIAS_K) * C
    tl.store(sums, grad_v * (gamma_c * mean_c + beta_c), mask=keep_c)
    if BIAS_V:
        tl.store(sums + C, grad_v, mask=keep_c)


@triton.jit
def _spread(pooled, grad_y, at, keep, factor, offset, mean, straight, crossed):
    """Gradient of the pooled map per element of a window: backward through the norm."""
    value = factor * tl.load(grad_y + at, mask=keep, other=0) + offset
    return value - straight - (tl.load(pooled + at, mask=keep, other=0) - mean) * crossed


@triton.jit(
    do_not_specialize=['B', 'H', 'W', 'kh', 'kw', 'nh', 'nw', 'ch', 'cw', 'blocks', 'rows', 'steps', 'size', 'norms']
)
def grad_gates(
    pooled, norm_stats, grad_y, offset, gamma, sums, gate, gate_c, by_row, by_col, along_h, along_w, spread, grad_z,
    B, C, H, W, kh, kw, nh, nw, ph, pw, ch, cw, blocks, rows, steps, size, norms,
    CHANNELS_LAST: tl.constexpr, UNIT: tl.constexpr, ACC: tl.constexpr,
    BS: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, BQ: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Gradients of the pooled map per element of a window, ``spread`` (B, C, n), and of the gates' arguments, grad_z.

    A program takes BL rows or columns; that of the first rows writes ``spread``.
    """
    pid = tl.program_id(0)
    of_rows = (H + BL - 1) // BL
    chunks = of_rows + (W + BL - 1) // BL
    chunk = pid % chunks
    block = pid // chunks % blocks
    b = pid // chunks // blocks
    n = nh * nw
    mean = tl.load(norm_stats + 2 * b)
    rstd = tl.load(norm_stats + 2 * b + 1)
    # The norm's two means over the image follow from the gradients of its parameters.
    sums += b * size + norms + 4 * C
    straight = tl.zeros([BS], ACC)
    crossed = tl.zeros([BS], ACC)
    for i in range(0, C, BS):
        lane = i + tl.arange(0, BS)
        weight = tl.load(gamma + lane, mask=lane < C, other=0).to(ACC)
        crossed += weight * tl.load(sums + lane, mask=lane < C, other=0)
        straight += weight * tl.load(sums + C + lane, mask=lane < C, other=0)
    each = rstd / (kh * kw)
    of_straight = tl.sum(straight) / (C * n) * each
    of_crossed = tl.sum(crossed) / (C * n) * rstd * each

    channel = block * BC + tl.arange(0, BC)
    keep_c = channel < C
    plane = b * C + channel
    factor = tl.load(gamma + channel, mask=keep_c, other=0).to(ACC) * each
    constant = tl.load(offset + plane, mask=keep_c, other=0) * factor
    if chunk == 0:
        for n0 in range(0, n, BN):
            p = n0 + tl.arange(0, BN)[None, :]
            keep = keep_c[:, None] & (p < n)
            at = plane[:, None] * n + p
            value = _spread(pooled, grad_y, at, keep, factor[:, None], constant[:, None], mean, of_straight, of_crossed)
            tl.store(spread + at, value, mask=keep)

    g = tl.load(gate_c + plane, mask=keep_c, other=0)[:, None]
    c = channel[:, None, None]
    factor = factor[:, None, None]
    constant = constant[:, None, None]
    if chunk < of_rows:
        h = chunk * BL + tl.arange(0, BL)
        keep = keep_c[:, None] & (h < H)[None, :]
        at = plane[:, None] * H + h[None, :]
        total = tl.zeros([BC, BL], ACC)
        for i in range(steps):
            total += tl.load(by_row + i * (B * C * H) + at, mask=keep, other=0)
        total *= g
        window = h // kh
        image_h = along_h + b.to(tl.int64) * (C * H * nw * pw)
        across = tl.zeros([BC, BL, BQ], ACC)
        for q0 in range(0, nw * pw, BQ):
            q = q0 + tl.arange(0, BQ)
            both = keep[:, :, None] & (window < nh)[None, :, None] & (q < nw * pw)[None, None, :]
            place = _place(c, h[None, :, None], q[None, None, :], C, H, nw * pw, CHANNELS_LAST)
            value = tl.load(image_h + place, mask=both, other=0).to(ACC)
            at_n = plane[:, None, None] * n + window[None, :, None] * nw + (q // pw)[None, None, :]
            u = _spread(pooled, grad_y, at_n, both, factor, constant, mean, of_straight, of_crossed)
            cells = (_end(q, kw, pw, cw, W) - _start(q, kw, pw, cw)).to(ACC)
            across += value * u * cells[None, None, :]
        total += tl.sum(across, 2)
        a = tl.load(gate + at, mask=keep, other=0)
        tl.store(grad_z + at, total * _sigmoid_slope(a, UNIT), mask=keep)
    else:
        w = (chunk - of_rows) * BL + tl.arange(0, BL)
        keep = keep_c[:, None] & (w < W)[None, :]
        at = plane[:, None] * W + w[None, :]
        total = tl.zeros([BC, BL], ACC)
        for i in range(rows):
            total += tl.load(by_col + i * (B * C * W) + at, mask=keep, other=0)
        total *= g
        window = w // kw
        image_w = along_w + b.to(tl.int64) * (C * nh * ph * W)
        down = tl.zeros([BC, BQ, BL], ACC)
        for q0 in range(0, nh * ph, BQ):
            q = q0 + tl.arange(0, BQ)
            both = keep[:, None, :] & (window < nw)[None, None, :] & (q < nh * ph)[None, :, None]
            place = _place(c, q[None, :, None], w[None, None, :], C, nh * ph, W, CHANNELS_LAST)
            value = tl.load(image_w + place, mask=both, other=0).to(ACC)
            at_n = plane[:, None, None] * n + (q // ph * nw)[None, :, None] + window[None, None, :]
            u = _spread(pooled, grad_y, at_n, both, factor, constant, mean, of_straight, of_crossed)
            cells = (_end(q, kh, ph, ch, H) - _start(q, kh, ph, ch)).to(ACC)
            down += value * u * cells[None, :, None]
        total += tl.sum(down, 1)
        at += B * C * H
        a = tl.load(gate + at, mask=keep, other=0)
        tl.store(grad_z + at, total * _sigmoid_slope(a, UNIT), mask=keep)


@triton.jit(do_not_specialize=['B', 'H', 'W', 'size'])
def gates_backward(
    means, stats, grad_z, grad_mean, sums,
    weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3, gamma_h, gamma_w, B, C, H, W, size,
    K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, K3: tl.constexpr, KMAX: tl.constexpr,
    ACC: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Through norm and convolution to the strips: ``grad_mean``, divided by the length that the mean was taken over.

    Gradients of the convolutions and norms for each image go to ``sums``: (images, size) for the rows, with the
    convolutions' part for the columns after all of these. grad_z is overwritten.
    """
    group, direction, b, weight, bias, k, L = _group(
        tl.program_id(0), weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3, H, W, K0, K1, K2, K3
    )
    D = C // 4
    here = direction * (B * C * H) + (b * C + group * D) * L
    means += here
    grad_z += here
    grad_mean += here
    mean = tl.load(stats + tl.program_id(0) * 2)
    rstd = tl.load(stats + tl.program_id(0) * 2 + 1)
    gamma = gamma_h
    if direction == 1:
        gamma = gamma_w
    gamma += group * D
    before = tl.where(group > 0, K0, 0) + tl.where(group > 1, K1, 0) + tl.where(group > 2, K2, 0)
    to_conv = sums + (direction * B + b) * size + D * (before + group)
    to_norm = sums + b * size + D * (K0 + K1 + K2 + K3 + 4) + direction * 2 * C + group * D

    straight = tl.zeros([BC], ACC)
    crossed = tl.zeros([BC], ACC)
    for c0 in range(0, D, BC):
        channel = c0 + tl.arange(0, BC)
        c = channel[:, None]
        grad_gamma = tl.zeros([BC, BL], ACC)
        grad_beta = tl.zeros([BC, BL], ACC)
        for l0 in range(0, L, BL):
            p = l0 + tl.arange(0, BL)[None, :]
            inside = (c < D) & (p < L)
            y = (_convolve(means, weight, bias, c, p, D, L, k, KMAX, ACC) - mean) * rstd
            tl.store(grad_mean + c * L + p, y, mask=inside)  # for the next loop
            dz = tl.load(grad_z + c * L + p, mask=inside, other=0)
            grad_gamma += dz * y
            grad_beta += dz
        grad_gamma = tl.sum(grad_gamma, 1)
        grad_beta = tl.sum(grad_beta, 1)
        tl.store(to_norm + channel, grad_gamma, mask=channel < D)
        tl.store(to_norm + C + channel, grad_beta, mask=channel < D)
        factor = tl.load(gamma + channel, mask=channel < D, other=0).to(ACC)
        crossed += factor * grad_gamma
        straight += factor * grad_beta
    of_straight = tl.sum(straight) / (D * L)
    of_crossed = tl.sum(crossed) / (D * L)
    tl.debug_barrier()
    for c0 in range(0, D, BC):
        channel = c0 + tl.arange(0, BC)
        c = channel[:, None]
        factor = tl.load(gamma + c, mask=c < D, other=0).to(ACC)
        total = tl.zeros([BC, BL], ACC)
        for l0 in range(0, L, BL):
            p = l0 + tl.arange(0, BL)[None, :]
            inside = (c < D) & (p < L)
            y = tl.load(grad_mean + c * L + p, mask=inside, other=0)
            dz = tl.load(grad_z + c * L + p, mask=inside, other=0)
            dz = tl.where(inside, rstd * (factor * dz - of_straight - y * of_crossed), 0)
            tl.store(grad_z + c * L + p, dz, mask=inside)
            total += y
        # The sum of all these dz, from sums: theirs nearly cancel, with the errors of all of them left.
        grad_beta = tl.load(to_norm + C + c, mask=c < D, other=0)
        grad_bias = factor * grad_beta - of_straight * L - of_crossed * tl.sum(total, 1)[:, None]
        tl.store(to_conv + D * k + c, rstd * grad_bias, mask=c < D)
    tl.debug_barrier()
    other = tl.where(direction == 0, W, H)
    for c0 in range(0, D, BC):
        channel = c0 + tl.arange(0, BC)
        c = channel[:, None]
        for l0 in range(0, L, BL):
            p = l0 + tl.arange(0, BL)[None, :]
            total = tl.zeros([BC, BL], ACC)
            for t in tl.static_range(KMAX):
                at = p + k // 2 - t
                use = (c < D) & (t < k)
                tap = tl.load(weight + c * k + t, mask=use, other=0).to(ACC)
                total += tap * tl.load(grad_z + c * L + at, mask=use & (at >= 0) & (at < L), other=0)
            tl.store(grad_mean + c * L + p, total / other, mask=(c < D) & (p < L))
        for t in tl.static_range(KMAX):
            grad_tap = tl.zeros([BC, BL], ACC)
            use = (c < D) & (t < k)
            for l0 in range(0, L, BL):
                p = l0 + tl.arange(0, BL)[None, :]
                at = p + t - k // 2
                dz = tl.load(grad_z + c * L + p, mask=use & (p < L), other=0)
                grad_tap += dz * tl.load(means + c * L + at, mask=use & (at >= 0) & (at < L), other=0)
            tl.store(to_conv + channel * k + t, tl.sum(grad_tap, 1), mask=(channel < D) & (t < k))


@triton.jit(
    do_not_specialize=['B', 'H', 'WV', 'kh', 'kw', 'nh', 'nw', 'ph', 'ch', 'cells', 'chunk', 'blocks', 'rows', 'steps']
)
def grad_input(
    grad, gate, gate_c, spread, grad_mean, out, B, C, H, WV, kh, kw, nh, nw, ph, ch, cells, chunk, blocks, rows, steps,
    VEC: tl.constexpr, CHANNELS_LAST: tl.constexpr, ACC: tl.constexpr,
    BC: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """(G g + U) a_h a_w + what comes through the strips. A tile lies in one row of windows: its rows have one U."""
    W = WV * VEC
    step, row, block, b = _split(tl.program_id(0), steps, rows, blocks)
    channel = block * BC + tl.arange(0, BC)
    width = step * BW + tl.arange(0, BW)
    plane = (b * C + channel)[:, None]
    c, w = channel[:, None, None], width[None, None, :]
    keep_c, keep_w = channel[:, None] < C, width[None, :] < W
    image = b.to(tl.int64) * (C * H * W)
    g = tl.load(gate_c + plane, mask=keep_c, other=0)
    at_w = B * C * H + plane * W + width[None, :]
    a_w = tl.load(gate + at_w, mask=keep_c & keep_w, other=0)
    d_w = tl.load(grad_mean + at_w, mask=keep_c & keep_w, other=0)
    window = (width // kw)[None, :]
    for r in range(row * chunk, tl.minimum((row + 1) * chunk, cells)):
        height = _start(r, kh, ph, ch) + tl.arange(0, BH)
        h = height[None, :, None]
        last = _end(r, kh, ph, ch, H)
        keep_h = keep_c & (height < last)[None, :]
        at_h = plane * H + height[None, :]
        a_h = tl.load(gate + at_h, mask=keep_h, other=0)
        d_h = tl.load(grad_mean + at_h, mask=keep_h, other=0)
        of_window = keep_c & keep_w & (window < nw) & (r // ph < nh)
        u = tl.load(spread + (plane * nh + r // ph) * nw + window, mask=of_window, other=0)
        inside = (c < C) & (h < last) & (w < W)
        place = image + _place(c, h, w, C, H, W, CHANNELS_LAST)
        v = tl.load(grad + place, mask=inside, other=0).to(ACC)
        v = (v * (g * a_w)[:, None, :] + (u * a_w)[:, None, :]) * a_h[:, :, None] + d_h[:, :, None] + d_w[:, None, :]
        tl.store(out + place, v, mask=inside)


@triton.jit(do_not_specialize=['B', 'convs', 'size'])
def add_images(sums, out, B, convs, size, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """Sum over images; of the convolutions' parameters, the first ``convs``, over both directions too."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], ACC)
    for b in range(B):
        total += tl.load(sums + b * size + i, mask=i < size, other=0)
        total += tl.load(sums + (B + b) * size + i, mask=i < convs, other=0)
    tl.store(out + i, total, mask=i < size)
