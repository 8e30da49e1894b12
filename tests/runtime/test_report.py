"""The log line about attention."""

from torch import nn

from scsa_mm.attention import EMA, SCSA
from scsa_mm.runtime.report import describe_attention


def test_counts_kinds_parameters_and_what_is_frozen():
    model = nn.Sequential(SCSA(16), nn.Conv2d(16, 16, 1), SCSA(16), EMA(16, groups=4))
    assert describe_attention(model) == 'attention: 2 x SCSA, 1 x EMA, 688 parameters'
    model[0].requires_grad_(False)
    assert describe_attention(model).endswith(
        '688 parameters, 256 of them frozen (they stay as they start: see frozen_stages)'
    )


def test_none():
    assert describe_attention(nn.Linear(1, 1)) == 'attention: none'
