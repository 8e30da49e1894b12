"""Functions that the kernels of all operators use. ``LAST`` means a channels-last map throughout.

Triton's own exp and division of float32 are fast and off by some units in the last place, always to the same side: sums
over a whole map, such as the gradients of parameters, then show it. These here round correctly or nearly so.
"""

import triton
import triton.language as tl

_LOG2_E = tl.constexpr(1.4426950408889634)
# ln 2 in two parts: the first has so few digits that its product with a whole number is exact.
_LN2_HIGH = tl.constexpr(0.693359375)
_LN2_LOW = tl.constexpr(-2.12194440e-4)


@triton.jit
def exp(x):
    """e^x within a unit in the last place; in float32 of x held between -87 and 88."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        x = tl.maximum(x, -87.0, propagate_nan=tl.PropagateNan.ALL)
        x = tl.minimum(x, 88.0, propagate_nan=tl.PropagateNan.ALL)
        whole = tl.floor(x * _LOG2_E + 0.5)
        r = x - whole * _LN2_HIGH
        r = r - whole * _LN2_LOW
        p = r * 1.9875691500e-4 + 1.3981999507e-3
        p = p * r + 8.3334519073e-3
        p = p * r + 4.1665795894e-2
        p = p * r + 1.6666665459e-1
        p = p * r + 5.0000001201e-1
        p = (p * (r * r) + r) + 1.0
        return p * ((whole.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def divide(a, b):
    if b.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def rsqrt(x):
    if x.dtype == tl.float64:
        return 1 / tl.sqrt(x)
    else:
        return tl.div_rn(1.0, tl.sqrt_rn(x))


@triton.jit
def sigmoid(z, UNIT: tl.constexpr):
    """Of ``UNIT`` doubled, so that 0 gives 1."""
    top = 2.0 if UNIT else 1.0
    return divide(top, 1.0 + exp(-z))


@triton.jit
def sigmoid_slope(a, UNIT: tl.constexpr):
    """Derivative of ``sigmoid`` from its value."""
    return a * (1 - a / 2) if UNIT else a * (1 - a)


@triton.jit
def place(c, h, w, C, H, W, LAST: tl.constexpr):
    """Offset of an element in its image."""
    return (h * W + w) * C + c if LAST else (c * H + h) * W + w


@triton.jit
def strip_place(c, p, C, L, LAST: tl.constexpr):
    """Offset in the strips of an image: (C, L), or (L, C) of a channels-last map."""
    return p * C + c if LAST else c * L + p
