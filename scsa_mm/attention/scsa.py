"""SCSA, and its two halves SMSA and PCSA.

Paper: SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention,
https://arxiv.org/abs/2407.05128. Source of the parameter names: https://github.com/HZAI-ZJNU/SCSA (Apache-2.0).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ..ops.arithmetic import Affine
from ..ops.dispatch import check_backend, choose
from ..ops.function import run
from ..ops.scsa import OPERATOR, Options, Weights, channel_gate, spatial_gates
from ..registry import register_attention
from ._checks import check_choice, check_divisible, check_kernel_sizes, check_positive_int, check_probability
from ._layers import affine, parameters_of

GATES = ('sigmoid', 'softmax')
DOWN_SAMPLE_MODES = ('avg_pool', 'max_pool')
SUB_FEATURES = 4
CONVS = ('local_dwc', 'global_dwc_s', 'global_dwc_m', 'global_dwc_l')
LAYERS = (*CONVS, 'norm_h', 'norm_w', 'norm', 'q', 'k', 'v')


# The halves are mixins, not submodules, so that the parameters of SCSA have the flat names of the published
# checkpoints (`norm_h`, not `smsa.norm_h`).
class _SpatialHalf:
    def _add_spatial(self, in_channels: int, kernel_sizes: Sequence[int], gate: str) -> None:
        owner = type(self).__name__
        check_positive_int(owner, 'in_channels', in_channels)
        check_divisible(owner, in_channels, SUB_FEATURES)
        check_kernel_sizes(owner, kernel_sizes)
        check_choice(owner, 'gate', gate, GATES)
        c = in_channels // SUB_FEATURES
        self.gate = gate
        for name, k in zip(CONVS, kernel_sizes, strict=True):
            self.add_module(name, nn.Conv1d(c, c, k, padding=k // 2, groups=c))
        self.norm_h = nn.GroupNorm(SUB_FEATURES, in_channels)
        self.norm_w = nn.GroupNorm(SUB_FEATURES, in_channels)

    def _spatial_weights(self) -> tuple[tuple[Affine, ...], Affine, Affine]:
        layers = self._modules
        return tuple([affine(layers[name]) for name in CONVS]), affine(layers['norm_h']), affine(layers['norm_w'])

    def _zero_spatial(self) -> None:
        for norm in (self.norm_h, self.norm_w):
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)


class _ChannelHalf:
    def _add_channel(
        self,
        in_channels: int,
        num_heads: int,
        window_size: int,
        qkv_bias: bool,
        down_sample_mode: str,
        gate: str,
        attn_drop: float,
    ) -> None:
        owner = type(self).__name__
        check_positive_int(owner, 'in_channels', in_channels)
        check_positive_int(owner, 'num_heads', num_heads)
        check_divisible(owner, in_channels, num_heads, 'num_heads')
        check_choice(owner, 'gate', gate, GATES)
        check_probability(owner, 'attn_drop', attn_drop)
        if down_sample_mode == 'recombination':
            raise ValueError(
                f"{owner}: down_sample_mode='recombination' was never defined (the released code calls a method that "
                f'it does not have); choose one of {", ".join(map(repr, DOWN_SAMPLE_MODES))}'
            )
        check_choice(owner, 'down_sample_mode', down_sample_mode, DOWN_SAMPLE_MODES)
        if window_size != -1:
            check_positive_int(owner, 'window_size', window_size)
        elif down_sample_mode != 'avg_pool':
            raise ValueError(
                f'{owner}: window_size=-1 takes the mean of the whole map, so down_sample_mode must be '
                f"'avg_pool', got {down_sample_mode!r}"
            )
        self.gate = gate
        self.num_heads = num_heads
        self.window_size = window_size
        self.down_sample_mode = down_sample_mode
        self.attn_drop = attn_drop
        self.norm = nn.GroupNorm(1, in_channels)
        self.q, self.k, self.v = (
            nn.Conv2d(in_channels, in_channels, 1, groups=in_channels, bias=qkv_bias) for _ in range(3)
        )

    def _channel_weights(self) -> tuple[Affine, ...]:
        layers = self._modules
        return tuple([affine(layers[name]) for name in ('norm', 'q', 'k', 'v')])

    def _options(self) -> Options:
        return Options(
            self.num_heads,
            self.window_size,
            self.down_sample_mode,
            self.gate,
            self.attn_drop if self.training else 0.0,
            self.identity_init,
        )

    def _zero_channel(self) -> None:
        nn.init.zeros_(self.v.weight)
        if self.v.bias is not None:
            nn.init.zeros_(self.v.bias)


@register_attention(in_root=True)
class SMSA(_SpatialHalf, nn.Module):
    """Shareable multi-semantic spatial attention: the spatial half of SCSA (section 3.1).

    Args:
        in_channels: Channels C of the input; a multiple of 4.
        kernel_sizes: Kernels of the depthwise 1-D convolutions, one per quarter of the channels; odd.
        gate: ``'sigmoid'``, or ``'softmax'`` over the length of the strip.
        identity_init: Start as the identity; see :class:`SCSA`.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1.

    Raises:
        ValueError: if a channel count, a kernel size or the gate is not as above.
    """

    _abbr_ = 'smsa'

    def __init__(
        self,
        in_channels: int,
        kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        gate: str = 'sigmoid',
        identity_init: bool = False,
    ) -> None:
        super().__init__()
        self.identity_init = identity_init
        self._add_spatial(in_channels, kernel_sizes, gate)
        self.init_weights()

    def init_weights(self) -> None:
        """Restore the identity, which a host's own initialisation of all its norms would undo (mmengine calls it)."""
        if self.identity_init:
            self._zero_spatial()

    def forward(self, x: Tensor) -> Tensor:
        a_h, a_w = spatial_gates(x, *self._spatial_weights(), gate=self.gate, unit=self.identity_init)
        return x * a_h * a_w


@register_attention(in_root=True)
class PCSA(_ChannelHalf, nn.Module):
    """Progressive channel-wise self-attention: the channel half of SCSA (section 3.2).

    Args:
        in_channels: Channels C of the input.
        num_heads: Heads of the self-attention between channels; divides C.
        window_size: Side of the pooling window in pixels, cut to H or W where that is smaller; -1 takes the mean of
            the whole map.
        qkv_bias: Give queries, keys and values a bias.
        down_sample_mode: ``'avg_pool'`` or ``'max_pool'``.
        gate: ``'sigmoid'``, or ``'softmax'`` over the channels.
        attn_drop: Dropout probability of the attention weights.
        identity_init: Start as the identity; see :class:`SCSA`.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1.

    Raises:
        ValueError: if an argument is not as above, or C is not a multiple of ``num_heads``.
    """

    _abbr_ = 'pcsa'

    def __init__(
        self,
        in_channels: int,
        num_heads: int = 1,
        window_size: int = 7,
        qkv_bias: bool = False,
        down_sample_mode: str = 'avg_pool',
        gate: str = 'sigmoid',
        attn_drop: float = 0.0,
        identity_init: bool = False,
    ) -> None:
        super().__init__()
        self.identity_init = identity_init
        self._add_channel(in_channels, num_heads, window_size, qkv_bias, down_sample_mode, gate, attn_drop)
        self.init_weights()

    def init_weights(self) -> None:
        """Restore the identity, which a host's own initialisation of its convolutions would undo."""
        if self.identity_init:
            self._zero_channel()

    def forward(self, x: Tensor) -> Tensor:
        return x * channel_gate(x, *self._channel_weights(), self._options())


@register_attention(in_root=True)
class SCSA(_SpatialHalf, _ChannelHalf, nn.Module):
    """Spatial and channel synergistic attention: PCSA(SMSA(x)).

    Equal to the released module, with the same parameter names, wherever that works. Beyond it: a map smaller than
    the window in a direction is pooled with the window cut to the map there, so that a 1x1 map is its own pooled map;
    the gates are computed in every case, on 1x1 maps from the biases of the norms where a norm sees a single value.

    Args:
        in_channels: Channels C of the input; a multiple of 4.
        num_heads: Heads of the self-attention between channels; divides C.
        window_size: Side of the pooling window in pixels; -1 takes the mean of the whole map.
        kernel_sizes: Kernels of the depthwise 1-D convolutions, one per quarter of the channels; odd.
        qkv_bias: Give queries, keys and values a bias.
        down_sample_mode: ``'avg_pool'`` or ``'max_pool'``.
        gate: ``'sigmoid'``, or ``'softmax'`` (over the strip in SMSA, over the channels in PCSA).
        attn_drop: Dropout probability of the attention weights.
        identity_init: Start as the identity, for a host with pretrained weights: at the published start the three
            sigmoids scale features to about 1/8. It changes two things. The gates are doubled (softmax: multiplied
            by the number of entries), so that a logit of 0 means 1, now and after training; and the norms of the
            strips and the values start at 0. Parameters and their names stay the same, but weights trained with one
            setting do not fit the other.
        backend: What computes it; ``'auto'`` is the fastest that can, see :mod:`scsa_mm.ops.dispatch`.

    Shape:
        (B, C, H, W) -> (B, C, H, W), same dtype and memory format; H, W >= 1.

    Cost:
        10 C + sum(kernel_sizes) C / 4 parameters, which is 16 C by default; 3 C more with ``qkv_bias``.

    Raises:
        TypeError: if a count is not an int.
        ValueError: if an argument is not as above; the message names the rule and the value.
    """

    _abbr_ = 'scsa'
    backend = 'auto'  # of modules that were pickled before there was a choice

    def __init__(
        self,
        in_channels: int,
        num_heads: int = 1,
        window_size: int = 7,
        kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        qkv_bias: bool = False,
        down_sample_mode: str = 'avg_pool',
        gate: str = 'sigmoid',
        attn_drop: float = 0.0,
        identity_init: bool = False,
        backend: str = 'auto',
    ) -> None:
        super().__init__()
        self.identity_init = identity_init
        self.backend = check_backend(backend, 'SCSA: backend')
        self._add_spatial(in_channels, kernel_sizes, gate)
        self._add_channel(in_channels, num_heads, window_size, qkv_bias, down_sample_mode, gate, attn_drop)
        self.init_weights()

    def init_weights(self) -> None:
        """Restore the identity, which a host's own initialisation of all its layers would undo (mmengine calls it)."""
        if self.identity_init:
            self._zero_spatial()
            self._zero_channel()

    def forward(self, x: Tensor) -> Tensor:
        return run(OPERATOR, x, *self._arguments(), self.backend)

    def backend_for(self, x: Tensor) -> str:
        """Which backend computes ``x``, and why not a faster one."""
        return str(choose(OPERATOR, x, *self._arguments(), self.backend))

    def _arguments(self) -> tuple[Weights, Options]:
        layers = self._modules
        return Weights(*parameters_of([layers[name] for name in LAYERS])), self._options()
