"""The attention between channels, forward and backward; ``triton_common`` says what all kernels have in common.

With the normalised map Y (C, n) and per-channel factors and offsets, q_c . k_e = sum (A_c Y_c + B_c) (D_e Y_e + E_e)
needs only the products Y_c . Y_e and the sums of Y. These products are made in tiles by ``gram``, with positions split
over programs, and in backward their factors are multiplied with the map by ``grad_pooled``.
"""

import triton
import triton.language as tl

from ..triton_math import divide
from . import triton_common as common


@triton.jit(do_not_specialize=['C', 'nh', 'nw', 'ph', 'pw'])
def windows(cells, pooled, C, nh, nw, ph, pw, ACC: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr):
    """The pooled map, where a window has several cells."""
    b = tl.program_id(1)
    n = nh * nw
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    inside = t < C * n
    window = t // C
    first = (window // nw * ph) * (nw * pw) + window % nw * pw
    cells += b * (n * ph * pw * C)
    total = tl.zeros([BK, BT], ACC)
    for k0 in range(0, ph * pw, BK):
        k = k0 + tl.arange(0, BK)[:, None]
        at = (first[None, :] + k // pw * (nw * pw) + k % pw) * C + (t % C)[None, :]
        total += tl.load(cells + at, mask=(k < ph * pw) & inside[None, :], other=0)
    tl.store(pooled + b * n * C + t, tl.sum(total, 0), mask=inside)


@triton.jit(do_not_specialize=['size', 'number'])
def statistics(pooled, parts, size, number, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """Of the pooled map of an image, ``size`` numbers: a part a program."""
    b = tl.program_id(1)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(pooled + b * size + i, mask=i < size, other=0)
    count = tl.minimum(BLOCK, size - tl.program_id(0) * BLOCK)
    common.store_part(parts, b * 3 * number + tl.program_id(0), number, values, i < size, count, ACC)


@triton.jit(do_not_specialize=['B', 'C', 'n', 'd', 'number', 'chunk', 'splits', 'keep'])
def gram(
    pooled, parts, product, sums, centred, B, C, n, d, number, chunk, splits, keep,
    ACC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Products of the centred channels of a head over ``chunk`` positions, (splits, B, C, d), and their sums.

    And the centred map as (B, C, n) if ``keep`` is 1; else ``centred`` is not written. Not by tl.dot: the way of
    float32 operands through shared memory takes longer than all else.
    """
    b = tl.program_id(2)
    head = tl.program_id(1)
    pid = tl.program_id(0)
    split = pid % splits
    columns = (d + BN - 1) // BN
    row = pid // splits // columns
    mean, variance, rstd = common.statistics(parts + b * 3 * number, number, number, ACC)
    c = row * BM + tl.arange(0, BM)
    e = pid // splits % columns * BN + tl.arange(0, BN)
    keep_c, keep_e = c < d, e < d
    pooled += b * n * C + head * d
    to = centred + (b * C + head * d + e) * n
    of_product = tl.zeros([BM, BN], ACC)
    of_e = tl.zeros([BN], ACC)
    last = tl.minimum((split + 1) * chunk, n)
    # So many at once, as each turn waits for memory.
    for p0 in range(split * chunk, last, 16):
        for j in tl.static_range(16):
            here = p0 + j < last
            at = pooled + (p0 + j) * C
            yc = tl.where(keep_c & here, tl.load(at + c, mask=keep_c & here, other=0) - mean, 0)
            ye = tl.where(keep_e & here, tl.load(at + e, mask=keep_e & here, other=0) - mean, 0)
            of_product += yc[:, None] * ye[None, :]
            of_e += ye
            tl.store(to + p0 + j, ye, mask=keep_e & here & (row < keep))
    at = (split * B + b) * C + head * d
    tl.store(
        product + (at + c).to(tl.int64)[:, None] * d + e[None, :], of_product, mask=keep_c[:, None] & keep_e[None, :]
    )
    tl.store(sums + at + e, of_e, mask=keep_e & (row == 0))


@triton.jit
def _product_sum(product, splits, stride, at, keep, ACC: tl.constexpr):
    total = tl.zeros(keep.shape, ACC)
    source = product + at
    for _ in range(splits):
        total += tl.load(source, mask=keep, other=0)
        source += stride
    return total


@triton.jit
def _score(a, b, d, shift, products, sum_of_asking, sum_of_answering, n):
    """Of those that ask, with factors a and b, and those that answer.

    Each rounding is fixed, and so the same in backward: shares of a score of 100 that is rounded another way there
    do not add up to 1, by a hundred times that.
    """
    both = tl.fma(d, products, shift * sum_of_asking)
    return tl.fma(a, both, b * tl.fma(d, sum_of_answering, shift * n))


@triton.jit
def _query(weight, bias, c, keep, gamma, beta, root, HAS_BIAS: tl.constexpr, ACC: tl.constexpr):
    """Factor and offset of Y in a query over the root of d, and the factor of the query alone."""
    factor, offset = common.factor_and_offset(weight, bias, c, keep, HAS_BIAS, ACC)
    return gamma * factor * root, tl.fma(beta, factor, offset) * root, factor


@triton.jit
def _key(weight, bias, c, keep, gamma, beta, HAS_BIAS: tl.constexpr, ACC: tl.constexpr):
    """The same of a key."""
    factor, offset = common.factor_and_offset(weight, bias, c, keep, HAS_BIAS, ACC)
    return gamma * factor, tl.fma(beta, factor, offset), factor


@triton.jit
def _mean_value(weight, bias, c, keep, gamma, beta, mean, HAS_BIAS: tl.constexpr, ACC: tl.constexpr):
    """From the mean of Y, and the factor of the value alone."""
    factor, offset = common.factor_and_offset(weight, bias, c, keep, HAS_BIAS, ACC)
    return factor * (gamma * mean + beta) + offset, factor


@triton.jit(do_not_specialize=['B', 'C', 'n', 'd', 'number', 'splits'])
def attend(
    parts, product, sums, gamma, beta, q, q_bias, k, k_bias, v, v_bias, logits, norm_stats,
    B, C, n, d, number, splits,
    BIAS_Q: tl.constexpr, BIAS_K: tl.constexpr, BIAS_V: tl.constexpr, UNIT: tl.constexpr,
    FAST: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Channel gates. ``logits`` (4, B, C): gate, its argument, the softmax's largest score, its denominator's inverse.

    A program takes BC queries and runs over the keys of their head, each lane with a running maximum of its own.
    """
    b = tl.program_id(2)
    head = tl.program_id(1)
    mean, variance, rstd = common.statistics(parts + b * 3 * number, number, number, ACC)
    if tl.program_id(0) + head == 0:
        common.store_statistics(norm_stats + 3 * b, mean, variance)
    in_head = tl.program_id(0) * BC + tl.arange(0, BC)
    c = head * d + in_head
    keep_c = in_head < d
    gamma_c, beta_c = common.factor_and_offset(gamma, beta, c, keep_c, True, ACC)
    root = common.rsqrt(tl.zeros([], ACC) + d)
    a_c, b_c, _ = _query(q, q_bias, c, keep_c, gamma_c, beta_c, root, BIAS_Q, ACC)
    product += b.to(tl.int64) * C * d
    sums += b * C
    sum_c = common.added(sums, splits, B * C, c, keep_c, ACC) * rstd
    number_of = tl.zeros([1, 1], ACC) + n
    top = tl.full([BC, BE], common.NEVER, ACC)
    below = tl.zeros([BC, BE], ACC)
    result = tl.zeros([BC, BE], ACC)
    for first in range(0, d, BE):
        e_in = first + tl.arange(0, BE)
        e = head * d + e_in
        keep_e = e_in < d
        keep = keep_c[:, None] & keep_e[None, :]
        sum_e = common.added(sums, splits, B * C, e, keep_e, ACC) * rstd
        at = c.to(tl.int64)[:, None] * d + e_in[None, :]
        products = _product_sum(product, splits, B * C * d, at, keep, ACC)
        gamma_e, beta_e = common.factor_and_offset(gamma, beta, e, keep_e, True, ACC)
        d_e, shift_e, k_e = _key(k, k_bias, e, keep_e, gamma_e, beta_e, BIAS_K, ACC)
        mean_v, v_e = _mean_value(v, v_bias, e, keep_e, gamma_e, beta_e, sum_e / n, BIAS_V, ACC)
        products *= rstd * rstd
        score = _score(
            a_c[:, None],
            b_c[:, None],
            d_e[None, :],
            shift_e[None, :],
            products,
            sum_c[:, None],
            sum_e[None, :],
            number_of,
        )
        score = tl.where(keep, score, common.NEVER)
        peak = tl.maximum(top, score)
        share = common.exp_of_score(score - peak, FAST)
        decay = common.exp_of_score(top - peak, FAST)
        below = below * decay + share
        result = result * decay + share * mean_v[None, :]
        top = peak
    peak = tl.max(top, 1)
    decay = common.exp_of_score(top - peak[:, None], FAST)
    whole = tl.sum(below * decay, 1)
    value = divide(tl.sum(result * decay, 1), whole)
    common.store_gate(logits + b * C + c, B * C, value, peak, whole, keep_c, UNIT)


@triton.jit(do_not_specialize=['B', 'C', 'n', 'd', 'splits', 'pieces', 'size'])
def attend_backward(
    norm_stats, product, of_y, logits, grad_gate, gamma, beta, q, q_bias, k, k_bias, v, v_bias,
    factors, offset, sums,
    B, C, n, d, splits, pieces, size,
    BIAS_Q: tl.constexpr, BIAS_K: tl.constexpr, BIAS_V: tl.constexpr, UNIT: tl.constexpr,
    FAST: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """From the gradient of the channel gates, ``pieces`` summands each, to that of the normalised pooled map.

    The latter is the ``factors`` (B, d, C) times the centred map, and ``offset`` (B, C) at all positions.
    Gradients of norm, q, k and v for each image go to ``sums`` (images, size). A program takes BC channels, both as
    queries and as keys of all others, as all needs the same products Y_c . Y_e.
    """
    b = tl.program_id(2)
    head = tl.program_id(1)
    _, rstd = common.load_statistics(norm_stats + 3 * b)
    in_head = tl.program_id(0) * BC + tl.arange(0, BC)
    c = head * d + in_head
    keep_c = in_head < d
    product += b.to(tl.int64) * C * d
    of_y += b * C
    logits += b * C
    grad_gate += b * C
    gamma_c, beta_c = common.factor_and_offset(gamma, beta, c, keep_c, True, ACC)
    root = common.rsqrt(tl.zeros([], ACC) + d)
    number_of = tl.zeros([1, 1], ACC) + n
    a_c, b_c, q_c = _query(q, q_bias, c, keep_c, gamma_c, beta_c, root, BIAS_Q, ACC)
    d_c, shift_c, k_c = _key(k, k_bias, c, keep_c, gamma_c, beta_c, BIAS_K, ACC)
    result_c, peak_c, of_c = common.gate_gradient(logits, grad_gate, pieces, B * C, c, keep_c, UNIT, ACC)
    sum_c = common.added(of_y, splits, B * C, c, keep_c, ACC) * rstd
    mean_v_c, v_c = _mean_value(v, v_bias, c, keep_c, gamma_c, beta_c, sum_c / n, BIAS_V, ACC)

    # Over all e: of what c asks (times D_e) and what it answers (times A_e), with Y_e . Y_c, the sum of Y_e, and alone.
    asks_product = tl.zeros([BC, BE], ACC)
    asks_sum = tl.zeros([BC, BE], ACC)
    asks_shift = tl.zeros([BC, BE], ACC)
    answers_product = tl.zeros([BC, BE], ACC)
    answers_sum = tl.zeros([BC, BE], ACC)
    answers_shift = tl.zeros([BC, BE], ACC)
    shares = tl.zeros([BC, BE], ACC)
    for first in range(0, d, BE):
        e_in = first + tl.arange(0, BE)
        e = head * d + e_in
        keep_e = e_in < d
        keep = keep_c[:, None] & keep_e[None, :]
        sum_e = common.added(of_y, splits, B * C, e, keep_e, ACC) * rstd
        at = c.to(tl.int64)[:, None] * d + e_in[None, :]
        products = _product_sum(product, splits, B * C * d, at, keep, ACC)
        products *= rstd * rstd
        gamma_e, beta_e = common.factor_and_offset(gamma, beta, e, keep_e, True, ACC)
        a_e, b_e, q_e = _query(q, q_bias, e, keep_e, gamma_e, beta_e, root, BIAS_Q, ACC)
        d_e, shift_e, k_e = _key(k, k_bias, e, keep_e, gamma_e, beta_e, BIAS_K, ACC)
        result_e, peak_e, of_e = common.gate_gradient(logits, grad_gate, pieces, B * C, e, keep_e, UNIT, ACC)
        mean_v_e, v_e = _mean_value(v, v_bias, e, keep_e, gamma_e, beta_e, sum_e / n, BIAS_V, ACC)

        # c asks, e answers.
        score = _score(
            a_c[:, None],
            b_c[:, None],
            d_e[None, :],
            shift_e[None, :],
            products,
            sum_c[:, None],
            sum_e[None, :],
            number_of,
        )
        share = tl.where(keep, common.exp_of_score(score - peak_c[:, None], FAST), 0)
        asks = share * of_c[:, None] * (mean_v_e[None, :] - result_c[:, None])
        # e asks, c answers.
        score = _score(
            a_e[None, :],
            b_e[None, :],
            d_c[:, None],
            shift_c[:, None],
            products,
            sum_e[None, :],
            sum_c[:, None],
            number_of,
        )
        share = tl.where(keep, common.exp_of_score(score - peak_e[None, :], FAST), 0) * of_e[None, :]
        answers = share * (mean_v_c[:, None] - result_e[None, :])

        shares += share
        asks_shift += asks * shift_e[None, :]
        answers_shift += answers * b_e[None, :]
        asks *= d_e[None, :]
        answers *= a_e[None, :]
        asks_product += asks * products
        asks_sum += asks * sum_e[None, :]
        answers_product += answers * products
        answers_sum += answers * sum_e[None, :]
        factor = (asks * (q_c * root)[:, None] + answers * k_c[:, None]) * rstd
        tl.store(factors + (b * d + e_in).to(tl.int64)[None, :] * C + c[:, None], factor, mask=keep)
    p1, p2, r1 = tl.sum(asks_product, 1), tl.sum(asks_shift, 1), tl.sum(asks_sum, 1)
    q1, q2, r2 = tl.sum(answers_product, 1), tl.sum(answers_shift, 1), tl.sum(answers_sum, 1)
    grad_v = tl.sum(shares, 1)
    # Factors and offsets of those that ask have the root of d in them already.
    p1, p2, r1 = p1 * root, p2 * root, r1 * root
    constant = q_c * p2 + k_c * q2 + grad_v * v_c / n
    tl.store(offset + b * C + c, constant, mask=keep_c)
    of_keys = r1 + n * p2
    of_queries = r2 + n * q2
    common.store_gradients(
        sums + b * size + 4 * C + c, C, keep_c,
        q_c * p1 + k_c * q1 + constant * sum_c, q_c * r1 + k_c * r2 + constant * n,
        gamma_c * (p1 + sum_c * p2) + beta_c * of_keys, of_keys,
        gamma_c * (q1 + sum_c * q2) + beta_c * of_queries, of_queries,
        grad_v * (gamma_c * (sum_c / n) + beta_c), grad_v, BIAS_Q, BIAS_K, BIAS_V,
    )  # fmt: skip


@triton.jit(do_not_specialize=['C', 'n', 'd'])
def grad_pooled(
    factors, centred, grad_y, C, n, d,
    LAST: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The factors times the centred map: (B, C, n), channels-last (B, n, C)."""
    b = tl.program_id(2)
    head = tl.program_id(1)
    columns = (n + BN - 1) // BN
    in_head = tl.program_id(0) // columns * BM + tl.arange(0, BM)
    p = tl.program_id(0) % columns * BN + tl.arange(0, BN)
    c = head * d + in_head
    total = tl.zeros([BM, BN], ACC)
    for first in range(0, d, BK):
        e = first + tl.arange(0, BK)
        here = (e < d)[:, None]
        left = here & (in_head < d)[None, :]
        factor = tl.load(factors + (b * d + e).to(tl.int64)[:, None] * C + c[None, :], mask=left, other=0)
        y = tl.load(centred + (b * C + head * d + e)[:, None] * n + p[None, :], mask=here & (p < n)[None, :], other=0)
        total = tl.dot(tl.trans(factor), y, total, input_precision=PRECISION, out_dtype=ACC)
    if LAST:
        to = (b * n + p)[None, :] * C + c[:, None]
    else:
        to = (b * C + c)[:, None] * n + p[None, :]
    tl.store(grad_y + to, total, mask=(in_head < d)[:, None] & (p < n)[None, :])
