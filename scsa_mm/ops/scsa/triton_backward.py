"""The kernels of SCSA's backward pass; ``triton_common`` says what all have in common."""

import triton
import triton.language as tl

from . import triton_common as common


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
    step, row, block, b = common.program(tl.program_id(0), steps, rows, blocks)
    channel = block * BC + tl.arange(0, BC)
    keep_c = (channel < C)[:, None]
    plane = (b * C + channel)[:, None]
    q0 = step * BQ
    q = q0 + tl.arange(0, BQ)
    span = 1 / tl.maximum(common.end(q, kw, pw, cw, W) - common.start(q, kw, pw, cw), 1).to(ACC)
    width, within = common.columns(q0, W, kw, pw, cw, CHANNELS_LAST, BQ, KW, BW)
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
        h0 = common.start(r, kh, ph, ch)
        h1 = common.end(r, kh, ph, ch, H)
        height = h0 + tl.arange(0, KH)
        h = height[None, :, None]
        keep_h = keep_c & (height < h1)[None, :]
        at_h = plane * H + height[None, :]
        a_h = tl.load(gate + at_h, mask=keep_h, other=0)
        inside = (c < C) & (h < h1) & within[None, None, :]
        place = image + common.place(c, h, w, C, H, W, CHANNELS_LAST)
        xv = tl.load(x + place, mask=inside, other=0).to(ACC)
        gx = tl.load(grad + place, mask=inside, other=0).to(ACC) * xv
        down += tl.sum(gx * a_h[:, :, None], 1)
        right = tl.sum(gx * a_w[:, None, :], 2)
        tl.store(by_row + step * (B * C * H) + at_h, right, mask=keep_h)
        both += tl.sum(right * a_h, 1)
        whole = r < nh * ph
        mean_w = tl.sum(xv * a_h[:, :, None], 1) / (h1 - h0)
        tl.store(
            image_w + common.place(channel[:, None], r, width[None, :], C, nh * ph, W, CHANNELS_LAST),
            mean_w,
            mask=keep_w & whole,
        )
        mean_h = tl.reshape(xv * a_w[:, None, :], [BC * KH, BW])
        mean_h = common.cell_sums(mean_h, q0, W, kw, pw, cw, CHANNELS_LAST, BC * KH, BQ, KW, BW) * span[None, :]
        tl.store(
            image_h + common.place(c, h, q[None, None, :], C, H, nw * pw, CHANNELS_LAST),
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
    gamma_c, beta_c = common.factor_and_offset(gamma, beta, c, keep_c, True, ACC)
    q_c, q0_c = common.factor_and_offset(q, q_bias, c, keep_c, BIAS_Q, ACC)
    k_c, k0_c = common.factor_and_offset(k, k_bias, c, keep_c, BIAS_K, ACC)
    v_c, v0_c = common.factor_and_offset(v, v_bias, c, keep_c, BIAS_V, ACC)
    a_c = gamma_c * q_c
    b_c = beta_c * q_c + q0_c
    d_c = gamma_c * k_c
    shift_c = beta_c * k_c + k0_c
    gate_c = tl.load(logits + c, mask=keep_c, other=0)
    result_c = tl.load(logits + B * C + c, mask=keep_c, other=0)
    log_c = tl.load(logits + 2 * B * C + c, mask=keep_c, other=0)
    grad_c = _added(grad_gate, number, B * C, c, keep_c, BC, ACC) * common.sigmoid_slope(gate_c, UNIT)
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
        product, sum_c, sum_e = common.gram(pooled, mean, c, e, keep_c, keep_e, n, BN, BC, BE, ACC)
        product *= rstd * rstd
        sum_c *= rstd
        sum_e *= rstd
        mean_c = sum_c / n
        gamma_e, beta_e = common.factor_and_offset(gamma, beta, e, keep_e, True, ACC)
        q_e, q0_e = common.factor_and_offset(q, q_bias, e, keep_e, BIAS_Q, ACC)
        k_e, k0_e = common.factor_and_offset(k, k_bias, e, keep_e, BIAS_K, ACC)
        v_e, v0_e = common.factor_and_offset(v, v_bias, e, keep_e, BIAS_V, ACC)
        a_e = gamma_e * q_e
        b_e = beta_e * q_e + q0_e
        d_e = gamma_e * k_e
        shift_e = beta_e * k_e + k0_e
        gate_e = tl.load(logits + e, mask=keep_e, other=0)
        result_e = tl.load(logits + B * C + e, mask=keep_e, other=0)
        log_e = tl.load(logits + 2 * B * C + e, mask=keep_e, other=0)
        grad_e = _added(grad_gate, number, B * C, e, keep_e, BE, ACC) * common.sigmoid_slope(gate_e, UNIT)
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
            place = common.place(c, h[None, :, None], q[None, None, :], C, H, nw * pw, CHANNELS_LAST)
            value = tl.load(image_h + place, mask=both, other=0).to(ACC)
            at_n = plane[:, None, None] * n + window[None, :, None] * nw + (q // pw)[None, None, :]
            u = _spread(pooled, grad_y, at_n, both, factor, constant, mean, of_straight, of_crossed)
            cells = (common.end(q, kw, pw, cw, W) - common.start(q, kw, pw, cw)).to(ACC)
            across += value * u * cells[None, None, :]
        total += tl.sum(across, 2)
        a = tl.load(gate + at, mask=keep, other=0)
        tl.store(grad_z + at, total * common.sigmoid_slope(a, UNIT), mask=keep)
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
            place = common.place(c, q[None, :, None], w[None, None, :], C, nh * ph, W, CHANNELS_LAST)
            value = tl.load(image_w + place, mask=both, other=0).to(ACC)
            at_n = plane[:, None, None] * n + (q // ph * nw)[None, :, None] + window[None, None, :]
            u = _spread(pooled, grad_y, at_n, both, factor, constant, mean, of_straight, of_crossed)
            cells = (common.end(q, kh, ph, ch, H) - common.start(q, kh, ph, ch)).to(ACC)
            down += value * u * cells[None, :, None]
        total += tl.sum(down, 1)
        at += B * C * H
        a = tl.load(gate + at, mask=keep, other=0)
        tl.store(grad_z + at, total * common.sigmoid_slope(a, UNIT), mask=keep)


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
    group, direction, b, weight, bias, k, L = common.strip_group(
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
            y = (common.convolve(means, weight, bias, c, p, D, L, k, KMAX, ACC) - mean) * rstd
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
    step, row, block, b = common.program(tl.program_id(0), steps, rows, blocks)
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
        height = common.start(r, kh, ph, ch) + tl.arange(0, BH)
        h = height[None, :, None]
        last = common.end(r, kh, ph, ch, H)
        keep_h = keep_c & (height < last)[None, :]
        at_h = plane * H + height[None, :]
        a_h = tl.load(gate + at_h, mask=keep_h, other=0)
        d_h = tl.load(grad_mean + at_h, mask=keep_h, other=0)
        of_window = keep_c & keep_w & (window < nw) & (r // ph < nh)
        u = tl.load(spread + (plane * nh + r // ph) * nw + window, mask=of_window, other=0)
        inside = (c < C) & (h < last) & (w < W)
        place = image + common.place(c, h, w, C, H, W, CHANNELS_LAST)
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
