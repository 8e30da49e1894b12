"""What the GPU kernels of SCSA have in common; ``triton.py`` launches them.

Names in all of them: B, C, H, W is the shape of x. A kernel that reads x takes its width as ``WV`` times the constant
``VEC``, so that the compiler sees how far rows are aligned and loads several elements at once. ``D`` is C / 4.

A window of the pool is cut into cells, ``parts`` along a side, of at most ``cell`` rows or columns. Cells do not cross
windows; those of the rows and columns past the last whole window are numbered on after the whole ones.

Buffers of strips hold (B, C, H) and then (B, C, W). What several programs contribute to a sum is written beside each
other and added by the next kernel in a fixed order, so that results are the same from run to run.
"""

import triton
import triton.language as tl


@triton.jit
def sigmoid(z, UNIT: tl.constexpr):
    a = 1 / (1 + tl.exp(-z))
    return 2 * a if UNIT else a


@triton.jit
def sigmoid_slope(a, UNIT: tl.constexpr):
    """Derivative of ``sigmoid`` from its value."""
    return a * (1 - a / 2) if UNIT else a * (1 - a)


@triton.jit
def place(c, h, w, C, H, W, CHANNELS_LAST: tl.constexpr):
    """Offset of an element in its image."""
    return (h * W + w) * C + c if CHANNELS_LAST else (c * H + h) * W + w


@triton.jit
def program(pid, steps, rows, blocks):
    """Number of a program as (column step, row group, block of channels, image)."""
    step = pid % steps
    pid = pid // steps
    row = pid % rows
    pid = pid // rows
    return step, row, pid % blocks, pid // blocks


@triton.jit
def start(q, window, parts, cell):
    return q // parts * window + q % parts * cell


@triton.jit
def end(q, window, parts, cell, length):
    return tl.minimum(tl.minimum(start(q, window, parts, cell) + cell, (q // parts + 1) * window), length)


@triton.jit
def convolve(src, weight, bias, c, p, D, L, k, KMAX: tl.constexpr, ACC: tl.constexpr):
    """Depthwise convolution of ``src`` (D, L) at channels ``c`` (BC, 1) and positions ``p`` (1, BL)."""
    z = tl.load(bias + c, mask=c < D, other=0).to(ACC)
    for t in tl.static_range(KMAX):
        at = p + t - k // 2
        here = (c < D) & (t < k)
        tap = tl.load(weight + c * k + t, mask=here, other=0).to(ACC)
        z += tap * tl.load(src + c * L + at, mask=here & (at >= 0) & (at < L), other=0)
    return z


@triton.jit
def strip_group(pid, weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3, H, W,
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


@triton.jit
def columns(q0, W, window, parts, cell, CHANNELS_LAST: tl.constexpr, BQ: tl.constexpr, KW: tl.constexpr,
             BW: tl.constexpr):  # fmt: skip
    """The columns (BW) of BQ cells from q0 on, and which of them are there.

    In a contiguous map one after the other, for wide loads. In a channels-last map each cell has KW, some not there.
    """
    lane = tl.arange(0, BW)
    if CHANNELS_LAST:
        q = q0 + lane // KW
        column = start(q, window, parts, cell) + lane % KW
        inside = column < end(q, window, parts, cell, W)
    else:
        column = start(q0, window, parts, cell) + lane
        # Not the smaller of the two limits, as the compiler must see that each is a multiple of what it loads at once.
        inside = (column < start(q0 + BQ, window, parts, cell)) & (column < W)
    return column, inside


@triton.jit
def cell_sums(values, q0, W, window, parts, cell, CHANNELS_LAST: tl.constexpr, BR: tl.constexpr, BQ: tl.constexpr,
               KW: tl.constexpr, BW: tl.constexpr):  # fmt: skip
    """Sums (BR, BQ) over the columns of each cell. Values (BR, BW) as in ``columns``, zero where nothing is there."""
    if not CHANNELS_LAST:
        lane = tl.arange(0, BQ * KW)
        q = q0 + lane // KW
        column = start(q, window, parts, cell) + lane % KW
        inside = column < end(q, window, parts, cell, W)
        source = tl.where(inside, column - start(q0, window, parts, cell), 0)
        values = tl.gather(values, tl.broadcast_to(source[None, :], [BR, BQ * KW]), 1)
        values = tl.where(inside[None, :], values, 0)
    return tl.sum(tl.reshape(values, [BR, BQ, KW]), 2)


@triton.jit
def factor_and_offset(weight, bias, c, keep, HAS_BIAS: tl.constexpr, ACC: tl.constexpr):
    """Factor and offset of a per-channel scaling."""
    factor = tl.load(weight + c, mask=keep, other=0).to(ACC)
    if HAS_BIAS:
        return factor, tl.load(bias + c, mask=keep, other=0).to(ACC)
    else:
        return factor, tl.zeros_like(factor)


@triton.jit
def gram(pooled, mean, c, e, keep_c, keep_e, n, BN: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
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
