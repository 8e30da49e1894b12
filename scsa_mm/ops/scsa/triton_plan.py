"""How SCSA works on a shape on the GPU: launches, and how its buffers are cut.

Constants of kernels follow few classes of sizes, not the sizes: each new one is compiled.
"""

from typing import NamedTuple

import torch

from ..arithmetic import sum_type
from ..launch import Launch, Launches
from ..triton_strips import LANGUAGE, strip_sums
from . import triton_channel, triton_few, triton_gates, triton_maps, triton_maps_last

CELL = 8  # rows and columns that a block of a map holds
PROGRAMS = 4096  # of one warp, which a large GPU holds at once
FEW = 4  # positions of the pooled map for which the attention's products are made where they are needed
STATISTICS = 2048  # numbers of the pooled map for one program
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
    gradients: list[int]  # how many numbers each parameter that is there has, in the order of ``flatten``
    shapes: list[tuple[int, tuple[int, ...]]]  # of those with more than one dimension, by place
    same: torch.dtype | None  # of all weights, if it is one


def kept_size(b: int, c: int, h: int, w: int, n: int) -> int:
    """Numbers that forward keeps beside x, for h by w pixels and n positions of the pooled map."""
    return _cut(_kept_parts(b, c, h, w, n))[1]


def _kept_parts(b: int, c: int, h: int, w: int, n: int) -> Buffer:
    return {'means': b * c * (h + w), 'pooled': b * c * n, 'logits': 4 * b * c, 'stats': 24 * b, 'norm_stats': 3 * b}


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
    few = n <= FEW
    of_convs, of_norms, of_scales = weights[:8], weights[8:12], weights[12:]
    same = weights[0] if len(set(weights)) == 1 else None
    total = same or acc

    strips = strip_sums(shape, dtype, last)
    taps = {f'K{i}': k for i, k in enumerate(lengths)} | {'KMAX': longest, 'LAST': last} | language
    longer, reach = max(h, w), longest // 2 * 2
    short = 8 if longer <= 8 else 16 if longer <= 16 else 0
    if short:
        block = {'BC': 512 // short if last else 256 // short, 'BL': short, 'num_warps': 2 if last else 1}
    elif last:
        block = {'BC': 16, 'BL': 32 if reach <= 16 else 128, 'num_warps': 4}
    else:
        block = {'BC': 1, 'BL': 128, 'num_warps': 1}
    blocks = -(-quarter // block['BC'])
    step, left = (block['BL'], 0) if longer <= block['BL'] else (block['BL'] - reach, longest // 2)
    chunks = -(-longer // step)
    parts = blocks * chunks
    convolve = Launch(
        triton_gates.convolve, (8 * b * parts,), (acc, acc, *of_convs, acc, acc),
        (b, c, h, w, strips.steps, strips.rows, chunks, blocks, step, left), **taps, **block,
    )  # fmt: skip
    chunks = -(-longer // block['BL'])
    gates, gates_again = (
        Launch(
            triton_gates.gates, (8 * b * blocks * chunks,), (acc, acc, *of_convs, *of_norms, acc, acc, acc),
            (b, c, h, w, number, chunks, blocks), UNIT=unit, **taps, **block,
        )
        for number in (parts, 1)
    )  # fmt: skip

    maps = _maps(shape, dtype, last, windows, down, across)
    rows, steps = maps.pieces
    of_windows = None
    if ph * pw > 1:
        of_windows = Launch(
            triton_channel.windows, (-(-c * n // 8), b), (acc, acc), (c, nh, nw, ph, pw), BT=8, BK=128, **language
        )

    # Channels.
    number = -(-c * n // STATISTICS)
    statistics = Launch(
        triton_channel.statistics, (number, b), (acc, acc), (c * n, number), BLOCK=STATISTICS, num_warps=8, **language
    )
    # Not so many that their products were larger than the map itself, with windows of a pixel or two.
    splits = min(-(-n // POSITIONS), max(1, 2 * n // d))
    if not few:
        tiles = -(-d // 8) * -(-d // 128)
        gram, gram_again = (
            Launch(
                triton_channel.gram, (splits * tiles, heads, b), (acc,) * 5,
                (b, c, n, d, *integers), BM=8, BN=128, **language,
            )
            for integers in ((number, -(-n // splits), splits, 0), (1, -(-n // splits), splits, 1))
        )  # fmt: skip
        grad_pooled = Launch(
            triton_channel.grad_pooled, (-(-d // 16) * -(-n // 32), heads, b), (acc,) * 3, (c, n, d),
            LAST=last, PRECISION='tf32x3' if dtype.itemsize == 2 else 'ieee', BM=16, BN=32, BK=64, num_stages=2,
            **language,
        )  # fmt: skip
    bias = dict(zip(('BIAS_Q', 'BIAS_K', 'BIAS_V'), biases, strict=True))
    rounded = {'FAST': dtype.itemsize == 2} | language
    if few:
        positions = {'N': 1 if n == 1 else FEW}
        tile = positions | {'BC': 16 if n == 1 else 8, 'BE': 128}
        grid = (-(-d // tile['BC']), heads, b)
        project, project_again = (
            Launch(
                triton_few.project, (-(-c // 128), b), (acc, acc, *of_scales, *[acc] * 4),
                (b, c, n, d, k, rows * steps), UNIT=unit, BACK=back, BC=128, **positions, **bias, **language,
            )
            for back, k in ((False, number), (True, 1))
        )  # fmt: skip
        attend = Launch(triton_few.attend, grid, (acc, acc), (b, c, d), UNIT=unit, **tile, **rounded)
        attend_backward = Launch(
            triton_few.attend_backward, grid, (*[acc] * 4, *of_scales[:3], *of_scales[4:7:2], *[acc] * 4),
            (b, c, n, d, size), LAST=last, **bias, **tile, **rounded,
        )  # fmt: skip
    else:
        tile = {'BC': 4, 'BE': 128}
        grid = (-(-d // tile['BC']), heads, b)
        attend = Launch(
            triton_channel.attend, grid, (*[acc] * 3, *of_scales, acc, acc), (b, c, n, d, number, splits),
            UNIT=unit, **bias, **tile, **rounded,
        )  # fmt: skip
        attend_backward = Launch(
            triton_channel.attend_backward, grid, (*[acc] * 5, *of_scales, *[acc] * 3),
            (b, c, n, d, splits, rows * steps, size), UNIT=unit, **bias, **tile, **rounded,
        )  # fmt: skip

    # Gradients of strips and parameters.
    if last:
        pieces_block = {'BC': 32, 'BL': 8, 'BQ': 2}
    else:
        pieces_block = {'BC': 8, 'BL': 16, 'BQ': 4} if longer <= 16 else {'BC': 1, 'BL': 64, 'BQ': 8}
    pieces, of_c = -(-longer // pieces_block['BL']), -(-c // pieces_block['BC'])
    grad_gates = Launch(
        triton_gates.grad_gates, (pieces * of_c * 2 * b,),
        (*[acc] * 4, of_scales[0], *[acc] * 6, dtype, dtype, *[acc] * 3),
        (b, c, h, w, *windows, rows, steps, pieces, of_c, size),
        UNIT=unit, LAST=last, num_warps=1, **pieces_block, **language,
    )  # fmt: skip
    grad_strips = Launch(
        triton_gates.grad_strips, (8 * b * blocks * chunks,),
        (*[acc] * 5, *of_convs[:4], of_norms[0], of_norms[2], *[acc] * 3),
        (b, c, h, w, pieces, pieces_block['BL'], chunks, blocks, size), **taps, **block,
    )  # fmt: skip
    add_images = Launch(
        triton_gates.add_images, (-(-convs // 16) + -(-size // 16),), (acc, acc, total),
        (convs, size, 2 * b * chunks, b), BR=64, BP=16, **language,
    )  # fmt: skip

    strip_size = b * c * (h + w)
    if few:
        products = {'projected': (2 * positions['N'] + 2) * b * c}
    else:
        products = {'product': splits * b * c * d, 'of_y': splits * b * c}
    kept, kept_end = _cut(_kept_parts(b, c, h, w, n))
    forward, forward_end = _cut(
        {
            'by_row': strips.row_size,
            'by_col': strips.col_size,
            'gate': strip_size,
            'parts': 24 * b * parts,
            'cells': b * c * cells if of_windows else 0,
            'map_parts': 3 * b * number,
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

    # What gates write beside them is not needed in forward, and known in backward: it goes where nothing is of use.
    of = _Places(FORWARD, scratch=forward, kept=kept)
    stage = [
        of(strips.launch, 'x by_row by_col'),
        of(convolve, f'by_row by_col {CONVS} means parts'),
        of(gates, f'means parts {CONVS} gamma_h beta_h gamma_w beta_w gate stats by_row'),
        of(maps.pool, 'x gate cells' if of_windows else 'x gate pooled'),
    ]
    if of_windows:
        stage.append(of(of_windows, 'cells pooled'))
    stage.append(of(statistics, 'pooled map_parts'))
    if few:
        stage.append(of(project, f'pooled map_parts {SCALES} logits pooled projected norm_stats'))
        stage.append(of(attend, 'projected logits'))
    else:
        stage.append(of(gram, 'pooled map_parts product of_y gate'))
        stage.append(of(attend, f'map_parts product of_y {SCALES} logits norm_stats'))
    stage.append(of(maps.scale, 'x gate logits out'))

    backward['norm_sums'] = backward['sums'] + 4 * c
    of = _Places(BACKWARD, scratch=backward, kept=kept, along=along)
    back = [
        of(gates_again, f'means stats {CONVS} gamma_h beta_h gamma_w beta_w gate taps normal'),
        of(maps.grad_sums, 'x grad gate by_row by_col grad_gate along_h along_w'),
    ]
    if few:
        back += [
            of(project_again, f'pooled norm_stats {SCALES} logits grad_gate projected norm_stats'),
            of(
                attend_backward,
                'projected pooled norm_stats logits gamma beta q k v grad_y centred offset sums',
            ),
        ]
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
        of(maps.grad_input, 'grad gate logits spread grad_mean grad_x'),
        of(add_images, 'taps sums total'),
    ]
    gradients = [s for k in lengths for s in (quarter * k, quarter)] + [c] * (9 + sum(biases))
    shapes = [(2 * i, (quarter, 1, k)) for i, k in enumerate(lengths)]
    shapes += [(14 + i + sum(biases[:i]), (c, 1, 1, 1)) for i in range(3)]
    return Plan(
        acc=acc, forward=Launches(*stage), backward=Launches(*back),
        launches=tuple(launch for launch, _ in (*stage, *back)),
        scratch=forward_end, kept=kept_end, backward_scratch=backward_end, along=along_end,
        gradients=gradients, shapes=shapes, same=same,
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


class _Maps(NamedTuple):
    """The launches over maps; ``grad_sums`` leaves its sums in so many pieces down and across."""

    pool: Launch
    scale: Launch
    grad_sums: Launch
    grad_input: Launch
    pieces: tuple[int, int]


def _maps(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    last: bool,
    windows: tuple[int, ...],
    down: int,
    across: int,
) -> _Maps:
    """For windows (kh, kw, nh, nw, ph, pw, ch, cw), and so many cells down and across the whole map."""
    b, c, h, w = shape
    acc = sum_type(dtype)
    language = {'ACC': LANGUAGE[acc]}
    kh, kw, nh, nw, ph, pw, _, _ = windows
    cells_down, cells_across = nh * ph, nw * pw
    bq = _few_of(across)
    if last:
        sizes = (b, c // 4, h, w)
        wide, of_c = {'BC': 64 if c > 32 else 32}, -(-c // (64 if c > 32 else 32))
        narrow = {'BC': 32, 'num_warps': 1}
        chunk = _chunk(b * -(-c // 32) * cells_down, cells_across)
        steps = -(-cells_across // chunk)
        pool = Launch(
            triton_maps_last.pool, (-(-c // 32) * steps * cells_down, b), (dtype, acc, acc),
            (*sizes, *windows, chunk, steps, -(-c // 32)), **narrow, **language,
        )  # fmt: skip
        steps = -(-w // 16)
        scale = Launch(
            triton_maps_last.scale, (of_c * steps * -(-h // 4), b), (dtype, acc, acc, dtype),
            (*sizes, of_c, steps), BH=4, BW=16, **wide, **language,
        )  # fmt: skip
        grad_input = Launch(
            triton_maps_last.grad_input, (of_c * down * across, b), (dtype, *[acc] * 4, dtype),
            (*sizes, *windows, down, across, of_c), **wide, **language,
        )  # fmt: skip
        bq = min(bq, 4)
        block, blocks = {'BC': 128 // bq, 'BQ': bq}, -(-c // (128 // bq))
        steps = -(-across // bq)
        chunk = _chunk(b * blocks * steps, down)
        rows = -(-down // chunk)
        grid, rest, kernel = (blocks * steps * rows, b), (blocks,), triton_maps_last.grad_sums
    else:
        sizes = (b, c, h, w)
        of_pool = _few_of(cells_across)
        planes, steps = -(-b * c // (16 // of_pool)), -(-cells_across // of_pool)
        chunk = _chunk(planes * steps, cells_down)
        rows = -(-cells_down // chunk)
        pool = Launch(
            triton_maps.pool, (planes * steps * rows,), (dtype, acc, acc), (*sizes, *windows, chunk, rows, steps),
            BP=16 // of_pool, BQ=of_pool, num_warps=1, **language,
        )  # fmt: skip
        whole = w % 4 == 0
        size = c * h * w
        flat = {'WHOLE': whole} | language
        sizes_ = (b, c // 4, h, w // 4 if whole else w)
        scale = Launch(triton_maps.scale, (-(-size // 4096), b), (dtype, acc, acc, dtype), sizes_, BLOCK=1024, **flat)
        grad_input = Launch(
            triton_maps.grad_input,
            (-(-size // 2048), b),
            (dtype, *[acc] * 4, dtype),
            (*sizes_, kh, kw, nh, nw),
            BLOCK=512,
            **flat,
        )
        block, blocks = {'BP': 8 // bq, 'BQ': bq}, -(-b * c // (8 // bq))
        steps = -(-across // bq)
        chunk = _chunk(blocks * steps, down)
        rows = -(-down // chunk)
        grid, rest, kernel = (blocks * steps * rows,), (), triton_maps.grad_sums
        if dtype != torch.float64:
            block['maxnreg'] = 96  # without spilling, and a multiprocessor holds half as many warps more
    grad_sums = Launch(
        kernel, grid, (dtype, dtype, *[acc] * 4, dtype, dtype),
        (*sizes, *windows, down, across, chunk, rows, steps, *rest), num_warps=1, **block, **language,
    )  # fmt: skip
    return _Maps(pool, scale, grad_sums, grad_input, (rows, steps))


def _few_of(cells: int) -> int:
    """Cells across for a program, in a few classes."""
    return cells if cells <= 2 else 8


def _chunk(programs: int, length: int) -> int:
    """How many of ``length`` things a program takes, if there are so many programs for each of them."""
    return next((k for k in (8, 4, 2) if programs * -(-length // k) >= PROGRAMS), 1)


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
