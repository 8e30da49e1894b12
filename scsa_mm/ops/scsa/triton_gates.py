"""Kernels on strips, forward and backward; ``triton_common`` says what all have in common.

Their programs take some channels of one group, direction and image, and a chunk of the strip.
"""

import triton
import triton.language as tl

from ..triton_math import divide, sigmoid, sigmoid_slope
from . import triton_common as common


@triton.jit
def _program(chunks, blocks, B, C, H, W, LAST: tl.constexpr):
    """Chunk, block, number of the group among all of (image, direction), and its place in the strips."""
    pid = tl.program_id(0)
    chunk = pid % chunks
    block = pid // chunks % blocks
    item = pid // (chunks * blocks)
    group = item % 4
    direction = item // 4 % 2
    b = item // 8
    L = tl.where(direction == 0, H, W)
    D = C // 4
    first = direction * (B * C * H) + b * C * L
    if LAST:
        first += group * D
    else:
        first += group * D * L
    return chunk, block, item, group, direction, b, L, D, first


@triton.jit
def _tile(chunk, block, C, L, step, left, LAST: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr):
    """Channels, positions, and how far apart they are: channels are rows, or columns of a channels-last map."""
    c = block * BC + tl.arange(0, BC)
    p = chunk * step - left + tl.arange(0, BL)
    if LAST:
        return c[None, :], p[:, None], 1, C
    else:
        return c[:, None], p[None, :], L, 1


@triton.jit
def _conv(group, weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3,
           K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, K3: tl.constexpr):  # fmt: skip
    weight, bias = weight0, bias0
    if group == 1:
        weight, bias = weight1, bias1
    if group == 2:
        weight, bias = weight2, bias2
    if group == 3:
        weight, bias = weight3, bias3
    k = tl.where(group == 0, K0, tl.where(group == 1, K1, tl.where(group == 2, K2, K3)))
    before = tl.where(group > 0, K0, 0) + tl.where(group > 1, K1, 0) + tl.where(group > 2, K2, 0)
    return weight, bias, k, before


@triton.jit
def _convolve(means, weight, bias, c, p, of_c, of_p, D, L, k, KMAX: tl.constexpr, ACC: tl.constexpr):
    z = tl.load(bias + c + 0 * p, mask=(c < D) & (p == p), other=0).to(ACC)
    for t in tl.static_range(KMAX):
        at = p + t - k // 2
        use = (c < D) & (t < k)
        tap = tl.load(weight + c * k + t, mask=use, other=0).to(ACC)
        z += tap * tl.load(means + c * of_c + at * of_p, mask=use & (at >= 0) & (at < L), other=0)
    return z


@triton.jit(do_not_specialize=['B', 'C', 'H', 'W', 'steps', 'rows', 'chunks', 'blocks', 'step', 'left'])
def convolve(
    by_row, by_col, weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3, means, parts,
    B, C, H, W, steps, rows, chunks, blocks, step, left,
    K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, K3: tl.constexpr, KMAX: tl.constexpr,
    LAST: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Means along rows and columns from their sums, and the statistics of their convolutions: a part a program.

    Programs follow each other after ``step`` positions, overlap by what a kernel reaches to both sides, ``left``, and
    write the same means there.
    """
    chunk, block, item, group, direction, b, L, D, first = _program(chunks, blocks, B, C, H, W, LAST)
    weight, bias, k, before = _conv(
        group, weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3, K0, K1, K2, K3
    )
    c, p, of_c, of_p = _tile(chunk, block, C, L, step, left, LAST, BC, BL)
    source = by_row
    if direction == 1:
        source = by_col
    source += first - direction * (B * C * H)
    inside = (c < D) & (p >= 0) & (p < L)
    at = c * of_c + p * of_p
    total = tl.zeros([BL, BC] if LAST else [BC, BL], ACC)
    for i in range(tl.where(direction == 0, steps, rows)):
        total += tl.load(source + i * (B * C * L) + at, mask=inside, other=0)
    means += first
    tl.store(means + at, divide(total, (total * 0 + tl.where(direction == 0, W, H)).to(ACC)), mask=inside)
    tl.debug_barrier()  # other threads of this program read the means
    z = _convolve(means, weight, bias, c, p, of_c, of_p, D, L, k, KMAX, ACC)
    own = inside & (p >= chunk * step) & (p < (chunk + 1) * step)
    count = tl.minimum(BC, D - block * BC) * tl.maximum(tl.minimum(step, L - chunk * step), 0)
    number = chunks * blocks
    common.store_part(parts, item * 3 * number + block * chunks + chunk, number, z, own, count, ACC)


@triton.jit(do_not_specialize=['B', 'C', 'H', 'W', 'number', 'chunks', 'blocks'])
def gates(
    means, parts, weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3, gamma_h, beta_h, gamma_w, beta_w,
    gate, stats, normal, B, C, H, W, number, chunks, blocks,
    K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, K3: tl.constexpr, KMAX: tl.constexpr,
    UNIT: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Row and column gates and the normalised convolution; the statistics of all parts go to ``stats``, as one part."""
    chunk, block, item, group, direction, b, L, D, first = _program(chunks, blocks, B, C, H, W, LAST)
    weight, bias, k, before = _conv(
        group, weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3, K0, K1, K2, K3
    )
    mean, variance, rstd = common.statistics(parts + item * 3 * number, number, number, ACC)
    if block + chunk == 0:
        common.store_statistics(stats + item * 3, mean, variance)
    c, p, of_c, of_p = _tile(chunk, block, C, L, BL, 0, LAST, BC, BL)
    gamma, beta = gamma_h, beta_h
    if direction == 1:
        gamma, beta = gamma_w, beta_w
    scale = tl.load(gamma + group * D + c, mask=c < D, other=0).to(ACC)
    shift = tl.load(beta + group * D + c, mask=c < D, other=0).to(ACC)
    z = _convolve(means + first, weight, bias, c, p, of_c, of_p, D, L, k, KMAX, ACC)
    y = (z - mean) * rstd
    inside = (c < D) & (p < L)
    at = first + c * of_c + p * of_p
    tl.store(normal + at, y, mask=inside)
    tl.store(gate + at, sigmoid(y * scale + shift, UNIT), mask=inside)


@triton.jit
def spread_of(grad_y, centred, at, keep, factor, offset, mean, straight, crossed):
    """Gradient of the pooled map per element of a window: backward through the norm."""
    value = factor * tl.load(grad_y + at, mask=keep, other=0) + offset
    return value - straight - (tl.load(centred + at, mask=keep, other=0) - mean) * crossed


@triton.jit(
    do_not_specialize=[
        'B', 'C', 'H', 'W', 'kh', 'kw', 'nh', 'nw', 'ph', 'pw', 'ch', 'cw', 'rows', 'steps', 'chunks', 'blocks', 'size',
    ]
)  # fmt: skip
def grad_gates(
    centred, norm_stats, grad_y, offset, gamma, sums, gate, normal, gate_c, by_row, by_col, along_h, along_w,
    spread, grad_z, parts,
    B, C, H, W, kh, kw, nh, nw, ph, pw, ch, cw, rows, steps, chunks, blocks, size,
    UNIT: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BC: tl.constexpr, BL: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """Gradients of the pooled map per element of a window, ``spread``, and of the gates' arguments, ``grad_z``.

    ``parts`` (3, chunks, 2, B, C): sums of grad_z, of its product with the normalised convolution, and of the latter,
    for as many chunks as the direction has.
    ``spread`` and ``grad_y`` are (B, C, n), channels-last (B, n, C). A program takes BL rows or columns.
    """
    pid = tl.program_id(0)
    chunk = pid % chunks
    block = pid // chunks % blocks
    direction = pid // (chunks * blocks) % 2
    b = pid // (chunks * blocks * 2)
    L = tl.where(direction == 0, H, W)
    if chunk * BL >= L:
        return
    n = nh * nw
    mean, rstd = common.load_statistics(norm_stats + 3 * b)
    # The norm's two means over the image follow from the gradients of its parameters.
    sums += b * size
    of_straight = tl.zeros([128], ACC)
    of_crossed = tl.zeros([128], ACC)
    for i in range(0, C, 128):
        lane = i + tl.arange(0, 128)
        weight = tl.load(gamma + lane, mask=lane < C, other=0).to(ACC)
        of_crossed += weight * tl.load(sums + lane, mask=lane < C, other=0)
        of_straight += weight * tl.load(sums + C + lane, mask=lane < C, other=0)
    each = rstd / (kh * kw)
    count = (C * n).to(ACC)
    straight = tl.sum(of_straight) / count * each
    crossed = tl.sum(of_crossed) / count * rstd * each
    if not LAST:
        mean = mean * 0  # taken off already

    channel = block * BC + tl.arange(0, BC)
    keep_c = channel < C
    factor = tl.load(gamma + channel, mask=keep_c, other=0).to(ACC) * each
    constant = tl.load(offset + b * C + channel, mask=keep_c, other=0) * factor
    g = tl.load(gate_c + b * C + channel, mask=keep_c, other=0)
    number = tl.where(direction == 0, steps, rows)
    across = tl.where(direction == 0, nw * pw, nh * ph)
    window_size = tl.where(direction == 0, kh, kw)
    windows = tl.where(direction == 0, nh, nw)
    pieces = tl.where(direction == 0, pw, ph)
    piece = tl.where(direction == 0, cw, ch)
    other = tl.where(direction == 0, kw, kh)
    limit = tl.where(direction == 0, W, H)
    partial, along = by_row, along_h
    if direction == 1:
        partial, along = by_col, along_w
    p = chunk * BL + tl.arange(0, BL)
    # How far apart channels, positions and cells are in what is read.
    if LAST:
        of_c, of_p = 1, C
        of_n, c_n = C, 1
    else:
        of_c, of_p = L, 1
        of_n, c_n = 1, n
    a_p = tl.where(direction == 0, across, 1)
    a_q = tl.where(direction == 0, 1, W)
    a_c = L * across
    if LAST:
        a_p, a_q, a_c = a_p * C, a_q * C, 1
    n_p = tl.where(direction == 0, nw, 1)
    n_q = tl.where(direction == 0, 1, nw)
    along += b.to(tl.int64) * (C * L * across)
    at_image = b * C * n

    if LAST:
        c, place, q_, inside = (
            channel[None, None, :],
            p[:, None, None],
            tl.arange(0, BQ)[None, :, None],
            keep_c[None, None, :],
        )
        factor3, constant3 = factor[None, None, :], constant[None, None, :]
        total3 = tl.zeros([BL, BQ, BC], ACC)
    else:
        c, place, q_, inside = (
            channel[:, None, None],
            p[None, :, None],
            tl.arange(0, BQ)[None, None, :],
            keep_c[:, None, None],
        )
        factor3, constant3 = factor[:, None, None], constant[:, None, None]
        total3 = tl.zeros([BC, BL, BQ], ACC)
    window = place // window_size
    inside = inside & (place < L) & (window < windows)
    for q0 in range(0, across, BQ):
        q = q0 + q_
        both = inside & (q < across)
        value = tl.load(along + c * a_c + place * a_p + q * a_q, mask=both, other=0).to(ACC)
        at_n = at_image + c * c_n + (window * n_p + q // pieces * n_q) * of_n
        u = spread_of(grad_y, centred, at_n, both, factor3, constant3, mean, straight, crossed)
        cells = common.end(q, other, pieces, piece, limit) - common.start(q, other, pieces, piece)
        total3 += value * u * cells.to(ACC)
    first = direction * (B * C * H) + b * C * L
    if LAST:
        total = tl.sum(total3, 1)
        c, place, keep = channel[None, :], p[:, None], keep_c[None, :] & (p < L)[:, None]
        g = g[None, :]
    else:
        total = tl.sum(total3, 2)
        c, place, keep = channel[:, None], p[None, :], keep_c[:, None] & (p < L)[None, :]
        g = g[:, None]
    at = c * of_c + place * of_p
    from_sums = tl.zeros_like(total)
    for i in range(number):
        from_sums += tl.load(partial + b * C * L + i * (B * C * L) + at, mask=keep, other=0)
    total += from_sums * g
    a = tl.load(gate + first + at, mask=keep, other=0)
    y = tl.load(normal + first + at, mask=keep, other=0)
    dz = tl.where(keep, total * sigmoid_slope(a, UNIT), 0)
    tl.store(grad_z + first + at, dz, mask=keep)
    axis: tl.constexpr = 0 if LAST else 1
    to = parts + ((chunk * 2 + direction) * B + b) * C + channel
    stride = chunks * 2 * B * C
    tl.store(to, tl.sum(dz, axis), mask=keep_c)
    tl.store(to + stride, tl.sum(dz * y, axis), mask=keep_c)
    tl.store(to + 2 * stride, tl.sum(y, axis), mask=keep_c)

    # The windows that begin among these rows.
    if direction == 0:
        begin = (chunk * BL + kh - 1) // kh * nw
        stop = tl.minimum(((chunk + 1) * BL + kh - 1) // kh, nh) * nw
        for n0 in range(begin, stop, BL):
            w = n0 + tl.arange(0, BL)
            if LAST:
                c, v, here = channel[None, :], w[:, None], keep_c[None, :] & (w < stop)[:, None]
                factor2, constant2 = factor[None, :], constant[None, :]
            else:
                c, v, here = channel[:, None], w[None, :], keep_c[:, None] & (w < stop)[None, :]
                factor2, constant2 = factor[:, None], constant[:, None]
            at_n = at_image + c * c_n + v * of_n
            u = spread_of(grad_y, centred, at_n, here, factor2, constant2, mean, straight, crossed)
            tl.store(spread + at_n, u, mask=here)


@triton.jit(do_not_specialize=['B', 'C', 'H', 'W', 'pieces', 'piece', 'chunks', 'blocks', 'size'])
def grad_strips(
    means, stats, normal, grad_z, parts, weight0, weight1, weight2, weight3, gamma_h, gamma_w, grad_mean, taps, sums,
    B, C, H, W, pieces, piece, chunks, blocks, size,
    K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, K3: tl.constexpr, KMAX: tl.constexpr,
    LAST: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Through norm and convolution to the strips: ``grad_mean``, divided by the length that the mean was taken over.

    Gradients of the convolutions come in parts, a row of ``taps`` (2 B chunks, ..) each; those of the norms for each
    image go to ``sums``. ``parts`` is what ``grad_gates`` found, in ``pieces`` of so many positions, ``piece``.
    """
    chunk, block, item, group, direction, b, L, D, first = _program(chunks, blocks, B, C, H, W, LAST)
    weight, bias, k, before = _conv(
        group, weight0, weight1, weight2, weight3, weight0, weight1, weight2, weight3, K0, K1, K2, K3
    )
    _, rstd = common.load_statistics(stats + item * 3)
    gamma = gamma_h
    if direction == 1:
        gamma = gamma_w
    gamma += group * D
    further = 2 * B * C
    stride = pieces * further
    pieces = (L + piece - 1) // piece
    parts += (direction * B + b) * C + group * D
    of_straight = tl.zeros([128], ACC)
    of_crossed = tl.zeros([128], ACC)
    for c0 in range(0, D, 128):
        lane = c0 + tl.arange(0, 128)
        here = lane < D
        dz = tl.zeros([128], ACC)
        dzy = tl.zeros([128], ACC)
        for i in range(pieces):
            dz += tl.load(parts + i * further + lane, mask=here, other=0)
            dzy += tl.load(parts + stride + i * further + lane, mask=here, other=0)
        factor = tl.load(gamma + lane, mask=here, other=0).to(ACC)
        of_straight += factor * dz
        of_crossed += factor * dzy
    number = (D * L).to(ACC)
    straight = tl.sum(of_straight) / number
    crossed = tl.sum(of_crossed) / number

    c, p, of_c, of_p = _tile(chunk, block, C, L, BL, 0, LAST, BC, BL)
    axis: tl.constexpr = 0 if LAST else 1
    normal += first
    grad_z += first
    means += first
    factor = tl.load(gamma + c, mask=c < D, other=0).to(ACC)
    inside = (c < D) & (p < L)
    at = c * of_c + p * of_p
    y = tl.load(normal + at, mask=inside, other=0)
    dz = tl.load(grad_z + at, mask=inside, other=0)
    dz = tl.where(inside, rstd * (factor * dz - straight - y * crossed), 0)
    channel = block * BC + tl.arange(0, BC)
    keep = channel < D
    row = taps + ((b * 2 + direction) * chunks + chunk) * ((K0 + K1 + K2 + K3) * D + C)
    row += before * D + group * D
    total = tl.zeros_like(dz)
    for t in tl.static_range(KMAX):
        use = (c < D) & (t < k)
        # Gradient of the mean at p, by the position that the tap t leads to from there.
        to = p + k // 2 - t
        there = use & (to >= 0) & (to < L)
        moved = c * of_c + to * of_p
        y = tl.load(normal + moved, mask=there, other=0)
        dz_to = tl.load(grad_z + moved, mask=there, other=0)
        dz_to = tl.where(there, rstd * (factor * dz_to - straight - y * crossed), 0)
        total += tl.load(weight + c * k + t, mask=use, other=0).to(ACC) * dz_to
        back = p + t - k // 2
        given = tl.load(means + c * of_c + back * of_p, mask=use & (back >= 0) & (back < L), other=0)
        tl.store(row + channel * k + t, tl.sum(dz * given, axis), mask=keep & (t < k))
    other = tl.where(direction == 0, W, H)
    tl.store(grad_mean + first + at, total / other, mask=inside)

    # The sum of all these dz, from sums: theirs nearly cancel, with the errors of all of them left.
    dz = tl.zeros([BC], ACC)
    dzy = tl.zeros([BC], ACC)
    total_y = tl.zeros([BC], ACC)
    for i in range(pieces):
        dz += tl.load(parts + i * further + channel, mask=keep, other=0)
        dzy += tl.load(parts + stride + i * further + channel, mask=keep, other=0)
        total_y += tl.load(parts + 2 * stride + i * further + channel, mask=keep, other=0)
    factor = tl.load(gamma + channel, mask=keep, other=0).to(ACC)
    grad_bias = rstd * (factor * dz - straight * L - crossed * total_y)
    if chunk > 0:
        grad_bias = grad_bias * 0
    tl.store(row + D * k + channel, grad_bias, mask=keep)
    if chunk == 0:
        sums += b * size + direction * 2 * C + group * D
        tl.store(sums + channel, dzy, mask=keep)
        tl.store(sums + C + channel, dz, mask=keep)


@triton.jit(do_not_specialize=['convs', 'size', 'rows', 'images'])
def add_images(taps, sums, out, convs, size, rows, images, ACC: tl.constexpr, BR: tl.constexpr, BP: tl.constexpr):
    """Gradients of all parameters: the ``convs`` first from rows of ``taps``, others from a row of ``sums`` an image.

    ``size`` is the length of the latter rows.
    """
    blocks = (convs + BP - 1) // BP
    pid = tl.program_id(0)
    source, length, number, to, i0 = taps, convs, rows, 0, pid * BP
    if pid >= blocks:
        source, length, number, to, i0 = sums, size, images, convs, (pid - blocks) * BP
    i = i0 + tl.arange(0, BP)[None, :]
    total = tl.zeros([BR, BP], ACC)
    for r0 in range(0, number, BR):
        r = r0 + tl.arange(0, BR)[:, None]
        total += tl.load(source + r * length + i, mask=(r < number) & (i < length), other=0)
    i = i0 + tl.arange(0, BP)
    tl.store(out + to + i, tl.sum(total, 0), mask=i < length)
