"""How SCSA works on a shape on the GPU: launches, and how its buffers are cut. Made once for a shape and remembered.

Constants of kernels follow few classes of sizes, not the sizes: each new one is compiled.
"""

import functools
from typing import NamedTuple

import torch

from ..arithmetic import sum_type
from ..launch import Launch, Launches
from ..triton_strips import LANGUAGE, strip_sums
from . import triton_channel, triton_few, triton_gates, triton_maps, triton_maps_last

CELL = 8  # rows and columns that a block of a map holds
FEW = 4  # positions of the pooled map for which the attention's products are made where they are needed
POSITIONS = 64  # of the pooled map for one program of the others

Buffer = dict[str, int]

# The tensors that the launches of each pass get, in this order; `scratch` and `kept` are cut further.
WEIGHTS = (
    'weight0', 'weight1', 'weight2', 'weight3', 'bias0', 'bias1', 'bias2', 'bias3',
    'gamma_h', 'beta_h', 'gamma_w', 'beta_w', 'gamma', 'beta', 'q', 'q_bias', 'k', 'k_bias', 'v', 'v_bias',
)  # fmt: skip
FORWARD = ('x', 'out', 'scratch', 'kept', *WEIGHTS)
BACKWARD = ('grad', 'x', 'grad_x', 'scratch', 'kept', 'along', 'total', *WEIGHTS)
CONVS = 'weight0 weight1 weight2 weight3 bias0 bias1 bias2 bias3'
SCALES = 'gamma beta q q_bias k k_bias v v_bias'


class Plan(NamedTuple):
    """The launches of both passes, and sizes of the buffers that they get."""

    acc: torch.dtype
    forward: Launches
    backward: Launches
    launches: tuple[Launch, ...]
    scratch: int  # of forward
    kept: int
    backward_scratch: int
    along: int  # of means over cells, in the dtype of the map
    parameters: int
    same: torch.dtype | None  # of all weights, if it is one


def kept_size(b: int, c: int, h: int, w: int, n: int) -> int:
    """Numbers that forward keeps beside x, for h by w pixels and n positions of the pooled map."""
    return _cut(_kept_parts(b, c, h, w, n))[1]


def _kept_parts(b: int, c: int, h: int, w: int, n: int) -> Buffer:
    return {'means': b * c * (h + w), 'pooled': b * c * n, 'logits': 4 * b * c, 'stats': 24 * b, 'norm_stats': 3 * b}


@functools.lru_cache(maxsize=4096)
def make_plan(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    last: bool,
    kernel: tuple[int, int],
    lengths: tuple[int, ...],
    biases: tuple[bool, ...],
    heads: int,
    unit: bool,
    weights: tuple[torch.dtype, ...],
) -> Plan:
    """The plan for maps of a shape, dtype and memory format.

    Args:
        kernel: The pool's window, as high and wide as the map at most.
        lengths: Of the convolutions.
        biases: Whether q, k and v have one.
        heads: Of the attention.
        unit: As in ``Options``.
        weights: Dtypes of the convolutions' weights, their biases, then norm_h, norm_w, norm, q, k and v, weight and
            bias each; that of the weight where there is no bias.
    """
    b, c, h, w = shape
    acc = sum_type(dtype)
    language = {'ACC': LANGUAGE[acc]}
    kh, kw = kernel
    nh, nw = h // kh, w // kw
    n, d = nh * nw, c // heads
    ph, ch, down = _cells(h, kh)
    pw, cw, across = _cells(w, kw)
    cells = nh * ph * nw * pw
    windows = (kh, kw, nh, nw, ph, pw, ch, cw)
    quarter, longest = c // 4, max(lengths)
    convs = sum(lengths) * quarter + c
    size = (9 + sum(biases)) * c  # of the other parameters
    fast = {'FAST': dtype.itemsize == 2}
    few = n <= FEW
    of_convs, of_norms, of_scales = weights[:8], weights[8:12], weights[12:]
    same = weights[0] if len(set(weights)) == 1 else None
    total = same or acc

    strips = strip_sums(shape, dtype, last)
    taps = {f'K{i}': k for i, k in enumerate(lengths)} | {'KMAX': longest, 'LAST': last} | language
    reach = longest // 2 * 2
    if last:
        block = {'BC': 16, 'BL': 32 if reach <= 16 else 128, 'num_warps': 4}
    else:
        narrow = max(h, w) + reach <= 32
        block = {'BC': 8, 'BL': 32, 'num_warps': 1} if narrow else {'BC': 1, 'BL': 128, 'num_warps': 1}
    blocks = -(-quarter // block['BC'])
    chunks = -(-max(h, w) // (block['BL'] - reach))
    parts = blocks * chunks
    convolve = Launch(
        triton_gates.convolve, (8 * b * parts,), (acc, acc, *of_convs, acc, acc),
        (b, c, h, w, strips.steps, strips.rows, chunks, blocks), **taps, **block,
    )  # fmt: skip
    chunks = -(-max(h, w) // block['BL'])
    gates, gates_again = (
        Launch(
            triton_gates.gates, (8 * b * blocks * chunks,), (acc, acc, *of_convs, *of_norms, acc, acc, acc),
            (b, c, h, w, number, chunks, blocks), AGAIN=again, UNIT=unit, **taps, **block,
        )
        for again, number in ((False, parts), (True, 1))
    )  # fmt: skip

    # Maps.
    streamed, maps = (dtype, acc), triton_maps_last if last else triton_maps
    count = c // 4 if last else c
    if last:
        wide = {'BC': 64 if c > 32 else 32}
        of_c = -(-c // wide['BC'])
        pool_parts = cells * of_c
        pool_rest, pool_block = (of_c,), wide
        steps, tile = -(-w // 16), {'BH': 4, 'BW': 16}
        scale_grid, scale_rest = of_c * steps * -(-h // 4), (of_c, steps)
        scale_block = wide | tile
        input_grid, input_rest, input_block = of_c * down * across, (of_c,), wide
        bq = 1 if across == 1 else 2 if across == 2 else 4
        sums_block = {'BC': 128 // bq, 'BQ': bq}
        sums_blocks = -(-c // sums_block['BC'])
        many, sums_rest = 2048, (sums_blocks,)
    else:
        pool_parts = -(-c * cells // 64)
        pool_rest, pool_block = (), {'BT': 64, 'num_warps': 8}
        whole = w % 4 == 0
        scale_grid, scale_rest = -(-c * h * w // 4096), ()
        scale_block = {'WHOLE': whole, 'BLOCK': 1024}
        input_grid, input_rest, input_block = -(-c * down * across // 32), (), {'BT': 32}
        bq = 1 if across == 1 else 2 if across == 2 else 8
        sums_block = {'BP': 8 // bq, 'BQ': bq}
        sums_blocks = -(-b * c // sums_block['BP'])
        many, sums_rest = 4096, ()
    pool = Launch(
        maps.pool, (cells * of_c if last else pool_parts, b), (*streamed, acc, acc),
        (b, count, h, w, *windows, *pool_rest, pool_parts), **pool_block, **language,
    )  # fmt: skip
    number, of_windows = pool_parts, None
    if ph * pw > 1:
        number = -(-c * n // 8)
        of_windows = Launch(
            triton_channel.windows, (number, b), (acc, acc, acc), (c, nh, nw, ph, pw, number),
            BT=8, BK=128, **language,
        )  # fmt: skip
    scale_sizes = (b, c // 4, h, w if last or not whole else w // 4)
    scale = Launch(
        maps.scale, (scale_grid, b), (dtype, acc, acc, dtype), (*scale_sizes, *scale_rest), **scale_block, **language
    )
    steps = -(-across // bq)
    images = 1 if not last else b
    chunk = next((k for k in (8, 4, 2) if images * sums_blocks * steps * -(-down // k) >= many), 1)
    rows = -(-down // chunk)
    grid = (sums_blocks * steps * rows, b) if last else (sums_blocks * steps * rows,)
    grad_sums = Launch(
        maps.grad_sums, grid, (dtype, dtype, *[acc] * 4, dtype, dtype),
        (b, count, h, w, *windows, down, across, chunk, rows, steps, *sums_rest), num_warps=1, **sums_block, **language,
    )  # fmt: skip
    grad_input = Launch(
        maps.grad_input, (input_grid, b), (dtype, *[acc] * 4, dtype),
        (b, count, h, w, *windows, down, across, *input_rest), **input_block, **language,
    )  # fmt: skip

    # Channels.
    splits, gram, gram_again, grad_pooled = 1, None, None, None
    precision = {'PRECISION': 'tf32x3' if dtype.itemsize == 2 else 'ieee'}
    if not few:
        splits = -(-n // POSITIONS)
        tiles = -(-d // 32) * -(-d // 64)
        gram, gram_again = (
            Launch(
                triton_channel.gram, (splits * tiles, heads, b), (acc,) * 5, (b, c, n, d, k, POSITIONS, splits),
                BM=32, BN=64, BK=32, num_stages=2, **precision, **language,
            )
            for k in (number, 1)
        )  # fmt: skip
        grad_pooled = Launch(
            triton_channel.grad_pooled, (-(-d // 16) * -(-n // 32), heads, b), (acc,) * 3, (c, n, d),
            LAST=last, BM=16, BN=32, BK=64, num_stages=2, **precision, **language,
        )  # fmt: skip
    attention = dict(zip(('BIAS_Q', 'BIAS_K', 'BIAS_V'), biases, strict=True)) | language | fast
    attention |= {'UNIT': unit, 'BC': 16 if n == 1 else 8 if few else 4, 'BE': 128}
    grid = (-(-d // attention['BC']), heads, b)
    if few:
        attention |= {'N': 1 if n == 1 else FEW}
        attend = Launch(triton_few.attend, grid, (acc, acc, *of_scales, acc, acc), (b, c, n, d, number), **attention)
        attend_backward = Launch(
            triton_few.attend_backward, grid, (*[acc] * 4, *of_scales, *[acc] * 4), (b, c, n, d, rows * steps, size),
            LAST=last, **attention,
        )  # fmt: skip
    else:
        attend = Launch(
            triton_channel.attend, grid, (*[acc] * 3, *of_scales, acc, acc), (b, c, n, d, number, splits), **attention
        )
        attend_backward = Launch(
            triton_channel.attend_backward, grid, (*[acc] * 5, *of_scales, *[acc] * 3),
            (b, c, n, d, splits, rows * steps, size), **attention,
        )  # fmt: skip

    # Gradients of strips and parameters.
    if last:
        pieces_block = {'BC': 32, 'BL': 8, 'BQ': 2}
    else:
        pieces_block = {'BC': 8, 'BL': 16, 'BQ': 4} if max(h, w) <= 16 else {'BC': 1, 'BL': 32, 'BQ': 16}
    pieces, of_c = -(-max(h, w) // pieces_block['BL']), -(-c // pieces_block['BC'])
    grad_gates = Launch(
        triton_gates.grad_gates, (pieces * of_c * 2 * b,),
        (*[acc] * 4, of_scales[0], *[acc] * 6, dtype, dtype, *[acc] * 3),
        (b, c, h, w, *windows, rows, steps, pieces, of_c, size),
        UNIT=unit, LAST=last, num_warps=1, **pieces_block, **language,
    )  # fmt: skip
    grad_strips = Launch(
        triton_gates.grad_strips, (8 * b * blocks * chunks,),
        (*[acc] * 5, *of_convs[:4], of_norms[0], of_norms[2], *[acc] * 3),
        (b, c, h, w, pieces, chunks, blocks, size), **taps, **block,
    )  # fmt: skip
    add_images = Launch(
        triton_gates.add_images, (-(-convs // 16) + -(-size // 16),), (acc, acc, total),
        (convs, size, 2 * b * chunks, b), BR=64, BP=16, **language,
    )  # fmt: skip

    strip_size = b * c * (h + w)
    products = {} if few else {'product': splits * b * c * d, 'of_y': splits * b * c}
    kept, kept_end = _cut(_kept_parts(b, c, h, w, n))
    forward, forward_end = _cut(
        {
            'by_row': strips.row_size,
            'by_col': strips.col_size,
            'gate': strip_size,
            'parts': 24 * b * parts,
            'cells': b * c * cells if of_windows else 0,
            'pool_parts': 3 * b * pool_parts,
            'window_parts': 3 * b * number if of_windows else 0,
            'centred': 0 if few else b * c * n,
        }
        | products
    )
    backward, backward_end = _cut(
        {
            'gate': strip_size,
            'normal': strip_size,
            'by_row': steps * b * c * h,
            'by_col': rows * b * c * w,
            'grad_gate': rows * steps * b * c,
            'factors': 0 if few else b * c * d,
            'grad_y': b * c * n,
            'centred': b * c * n,
            'offset': b * c,
            'spread': b * c * n,
            'grad_z': strip_size,
            'parts': 3 * pieces * 2 * b * c,
            'grad_mean': strip_size,
            'taps': 2 * b * chunks * convs,
            'sums': b * size,
        }
        | products
    )
    along, along_end = _cut({'along_h': b * c * h * nw * pw, 'along_w': b * c * nh * ph * w})

    of = _Places(FORWARD, scratch=forward, kept=kept)
    stage = [
        of(strips.launch, 'x by_row by_col'),
        of(convolve, f'by_row by_col {CONVS} means parts'),
        of(gates, f'means parts {CONVS} gamma_h beta_h gamma_w beta_w gate stats gate'),
        of(pool, 'x gate cells pool_parts' if of_windows else 'x gate pooled pool_parts'),
    ]
    found = 'window_parts' if of_windows else 'pool_parts'
    if of_windows:
        stage.append(of(of_windows, 'cells pooled window_parts'))
    if few:
        stage.append(of(attend, f'pooled {found} {SCALES} logits norm_stats'))
    else:
        stage.append(of(gram, f'pooled {found} product of_y centred'))
        stage.append(of(attend, f'{found} product of_y {SCALES} logits norm_stats'))
    stage.append(of(scale, 'x gate logits out'))

    backward['norm_sums'] = backward['sums'] + 4 * c
    of = _Places(BACKWARD, scratch=backward, kept=kept, along=along)
    back = [
        of(gates_again, f'means stats {CONVS} gamma_h beta_h gamma_w beta_w gate stats normal'),
        of(grad_sums, 'x grad gate by_row by_col grad_gate along_h along_w'),
    ]
    if few:
        back.append(of(attend_backward, f'pooled norm_stats logits grad_gate {SCALES} grad_y centred offset sums'))
    else:
        back += [
            of(gram_again, 'pooled norm_stats product of_y centred'),
            of(attend_backward, f'norm_stats product of_y logits grad_gate {SCALES} factors offset sums'),
            of(grad_pooled, 'factors centred grad_y'),
        ]
    map_ = 'pooled' if last else 'centred'
    back += [
        of(
            grad_gates,
            f'{map_} norm_stats grad_y offset gamma norm_sums gate normal logits by_row by_col along_h along_w '
            'spread grad_z parts',
        ),
        of(
            grad_strips,
            'means stats normal grad_z parts weight0 weight1 weight2 weight3 gamma_h gamma_w grad_mean taps sums',
        ),
        of(grad_input, 'grad gate logits spread grad_mean grad_x'),
        of(add_images, 'taps sums total'),
    ]
    return Plan(
        acc=acc, forward=Launches(*stage), backward=Launches(*back),
        launches=tuple(launch for launch, _ in (*stage, *back)),
        scratch=forward_end, kept=kept_end, backward_scratch=backward_end, along=along_end, parameters=convs + size,
        same=same,
    )  # fmt: skip


class _Places:
    """Where pointers go that are named: tensors by their place, parts of cut ones by what they begin after."""

    def __init__(self, tensors: tuple[str, ...], **buffers: Buffer) -> None:
        self._places: dict[str, int | tuple[int, int]] = {name: i for i, name in enumerate(tensors)}
        for tensor, parts in buffers.items():
            place = tensors.index(tensor)
            self._places.update((name, (place, start)) for name, start in parts.items())

    def __call__(self, launch: Launch, names: str) -> tuple[Launch, list[int | tuple[int, int]]]:
        return launch, [self._places[name] for name in names.split()]


def _cells(length: int, window: int) -> tuple[int, int, int]:
    """Cells of a window along a side, their length, and their number on the whole map."""
    size = -(-window // -(-window // CELL))
    parts = -(-window // size)
    whole = length // window
    return parts, size, whole * parts + -(-(length - whole * window) // size)


def _cut(parts: Buffer) -> tuple[Buffer, int]:
    """Where each part begins, at a multiple of 16 numbers as kernels are compiled for aligned pointers; and the end."""
    starts, end = {}, 0
    for name, size in parts.items():
        starts[name] = end
        end += -(-size // 16) * 16
    return starts, end
