"""FCA: frequency channel attention, the multi-spectral layer of FcaNet.

Paper: FcaNet: Frequency Channel Attention Networks, https://arxiv.org/abs/2012.11879. Source of the parameter names
and of the ranking of the frequencies: https://github.com/HZAI-ZJNU/SCSA (Apache-2.0), after the paper's own code.
"""

import math

import torch
from torch import Tensor, nn

from ..registry import register_attention
from ._checks import check_divisible, check_positive_int, check_reduction

# Frequencies (vertical, horizontal) on a 7x7 map, the best one first, as the paper measured them one at a time.
RANKED = (
    *('00', '01', '60', '05', '02', '10', '12', '40', '50', '16', '30', '04', '06', '03', '35', '22'),
    *('46', '63', '33', '53', '55', '21', '61', '52', '54', '32', '31', '41', '23', '20', '65', '13'),
)
BASE = 7


def _cosines(size: int) -> Tensor:
    """The orthonormal DCT-II of ``size`` points: row u is frequency u."""
    position = torch.arange(size, dtype=torch.float64) + 0.5
    frequency = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * frequency[:, None] * position) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def _bins(size: int, bins: int, like: Tensor) -> Tensor:
    """(bins, size): row i averages the i-th bin of an adaptive pool.

    A product with it is that pool, but deterministic on GPUs when going backward, and ONNX has it for every size.
    """
    i = torch.arange(bins, device=like.device)[:, None]
    position = torch.arange(size, device=like.device)
    start, end = i * size // bins, ((i + 1) * size + bins - 1) // bins
    return ((position >= start) & (position < end)).to(like.dtype) / (end - start).to(like.dtype)


class _DCT(nn.Module):
    """One coefficient per channel; the channels are split evenly between the frequencies."""

    def __init__(self, in_channels: int, num_freq: int, dct_h: int, dct_w: int) -> None:
        super().__init__()
        vertical, horizontal = _cosines(dct_h), _cosines(dct_w)
        chosen = [(int(u) * (dct_h // BASE), int(v) * (dct_w // BASE)) for u, v in RANKED[:num_freq]]
        filters = torch.stack([torch.outer(vertical[u], horizontal[v]) for u, v in chosen])
        self.register_buffer('weight', filters.repeat_interleave(in_channels // num_freq, dim=0).float())

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).sum((2, 3))


@register_attention(in_root=False)
class FCA(nn.Module):
    """SE with DCT coefficients, of different frequencies for different channels, in place of the mean.

    In a config ``scsa_mm.FCA``. Maps of any size are first averaged to dct_h x dct_w.

    Args:
        in_channels: Channels C of the input; a multiple of ``num_freq``.
        num_freq: How many of the 32 best frequencies are used.
        dct_h: Height of the averaged map; a multiple of 7, as the frequencies are those of 7x7, scaled.
        dct_w: Width of the averaged map; a multiple of 7.
        reduction: Ratio of C to the hidden channels, h = C // reduction.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1.

    Cost:
        2 C h parameters, and a buffer of C dct_h dct_w numbers.

    Raises:
        TypeError: if a count is not an int.
        ValueError: if C is not a multiple of ``num_freq`` (the message lists those to choose from), ``num_freq`` more
            than 32, ``dct_h`` or ``dct_w`` no multiple of 7, or no hidden channel is left.
    """

    _abbr_ = 'fca'

    def __init__(
        self, in_channels: int, num_freq: int = 16, dct_h: int = 7, dct_w: int = 7, reduction: int = 16
    ) -> None:
        super().__init__()
        check_reduction('FCA', in_channels, reduction)
        check_positive_int('FCA', 'num_freq', num_freq)
        if num_freq > len(RANKED):
            raise ValueError(f'FCA: num_freq must be at most {len(RANKED)}, the ranked frequencies, got {num_freq}')
        check_divisible('FCA', in_channels, num_freq, 'num_freq')
        for name, value in (('dct_h', dct_h), ('dct_w', dct_w)):
            check_positive_int('FCA', name, value)
            if value % BASE:
                raise ValueError(f'FCA: {name} must be a multiple of {BASE}, got {value}')
        hidden = in_channels // reduction
        self.dct_h = dct_h
        self.dct_w = dct_w
        self.dct_layer = _DCT(in_channels, num_freq, dct_h, dct_w)
        self.fc = nn.Sequential(
            nn.Linear(in_channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, in_channels, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        pooled = _bins(h, self.dct_h, x) @ x @ _bins(w, self.dct_w, x).T
        gate = self.fc(self.dct_layer(pooled)).sigmoid().to(x.dtype)
        return x * gate[:, :, None, None]
