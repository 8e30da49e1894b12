"""Sums of a map along its rows and along its columns, the first pass of SCSA and of EMA."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .arithmetic import sum_type
from .launch import Launch
from .triton_math import place, strip_place


@triton.jit(do_not_specialize=['B', 'C4', 'H', 'W', 'steps', 'rows', 'times'])
def strips(
    x, by_row, by_col, B, C4, H, W, steps, rows, times,
    LAST: tl.constexpr, ACC: tl.constexpr,
    VEC: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Sums along rows, (steps, B, C, H), and columns, (rows, B, C, W); (.., H, C) and (.., W, C) channels-last.

    A program takes times * BH rows by BW columns. Contiguous: of BP planes, each a channel of an image, and so few
    columns that a warp holds them and no thread waits for others. Channels-last: of BC channels.
    """
    C = C4 * VEC
    pid = tl.program_id(0)
    step = pid % steps
    row = pid // steps % rows
    block = pid // (steps * rows)
    width = step * BW + tl.arange(0, BW)
    first = row * (times * BH)
    if LAST:
        blocks = (C + BC - 1) // BC
        b = (block // blocks).to(tl.int64)
        channel = block % blocks * BC + tl.arange(0, BC)
        image = x + b * (C * H * W)
        c = channel[None, None, :]
        w = width[None, :, None]
        keep = (c < C) & (w < W)
        down = tl.zeros([BW, BC], ACC)
        for i in range(times):
            height = first + i * BH + tl.arange(0, BH)
            h = height[:, None, None]
            v = tl.load(image + place(c, h, w, C, H, W, LAST), mask=keep & (h < H), other=0).to(ACC)
            down += tl.sum(v, 0)
            to = (step * B + b) * (C * H) + strip_place(channel[None, :], height[:, None], C, H, LAST)
            tl.store(by_row + to, tl.sum(v, 1), mask=(channel < C)[None, :] & (height < H)[:, None])
        to = (row * B + b) * (C * W) + strip_place(channel[None, :], width[:, None], C, W, LAST)
        tl.store(by_col + to, down, mask=(channel < C)[None, :] & (width < W)[:, None])
    else:
        plane = block * BP + tl.arange(0, BP)
        inside = plane < B * C
        w = width[None, None, :]
        keep = inside[None, :, None] & (w < W)
        top = plane.to(tl.int64) * (H * W)
        down = tl.zeros([BP, BW], ACC)
        for i in range(times):
            height = first + i * BH + tl.arange(0, BH)
            h = height[:, None, None]
            v = tl.load(x + (top[None, :, None] + (h * W + w)), mask=keep & (h < H), other=0).to(ACC)
            down += tl.sum(v, 0)
            to = (step * B * C + plane[None, :]) * H + height[:, None]
            tl.store(by_row + to, tl.sum(v, 2), mask=inside[None, :] & (height < H)[:, None])
        to = (row * B * C + plane[:, None]) * W + width[None, :]
        tl.store(by_col + to, down, mask=inside[:, None] & (width < W)[None, :])


ENOUGH = 512  # programs; with fewer they are made smaller


class StripSums(NamedTuple):
    """The launch, and how many parts each sum comes in; ``row_size`` and ``col_size`` are those of the buffers."""

    launch: Launch
    steps: int
    rows: int
    row_size: int
    col_size: int


def strip_sums(shape: tuple[int, int, int, int], dtype: torch.dtype, last: bool) -> StripSums:
    """The launch of :func:`strips` for maps (B, C, H, W); called with x and the two buffers, which it overwrites."""
    b, c, h, w = shape
    wide = 32 if last else 64
    narrow = wide if w > 16 else 16 if w > 8 else 8  # few classes, as each is compiled
    if last:
        vec = 4 if c % 4 == 0 else 1
        block = {'BP': 1, 'BC': 64 if c > 32 else 32, 'BH': 2, 'BW': narrow, 'num_warps': narrow // 8}
        times = 8
        blocks = b * -(-c // block['BC'])
    else:
        vec = 1
        block = {'BP': 64 // narrow, 'BC': 1, 'BH': 16, 'BW': narrow, 'num_warps': 1}
        times = 2
        blocks = -(-b * c // block['BP'])
    steps = -(-w // narrow)
    tall = block['BH']
    while times > 1 and (h <= tall * times // 2 or blocks * steps * -(-h // (tall * times)) < ENOUGH):
        times //= 2
    rows = -(-h // (tall * times))
    acc = sum_type(dtype)
    launch = Launch(
        strips, (blocks * rows * steps,), (dtype, acc, acc), (b, c // vec, h, w, steps, rows, times),
        LAST=last, ACC=LANGUAGE[acc], VEC=vec, **block,
    )  # fmt: skip
    return StripSums(launch, steps, rows, steps * b * c * h, rows * b * c * w)


LANGUAGE = {torch.float32: tl.float32, torch.float64: tl.float64}
