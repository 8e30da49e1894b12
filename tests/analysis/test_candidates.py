"""Attention as the command line names it."""

import pytest

from scsa_mm.analysis.candidates import parse_candidates
from scsa_mm.runtime.errors import UserError


def test_names_and_options():
    none, plain, options, other = parse_candidates(
        ['none', 'SCSA', 'SCSA:num_heads=4,kernel_sizes=(3,3,5,5),gate=softmax', 'mmpretrain.models.SELayer:ratio=8']
    )
    assert none.cfg is None
    assert plain.cfg == dict(type='scsa_mm.SCSA')
    assert parse_candidates(['SCSA:identity_init=false'])[0].cfg['identity_init'] is False
    assert options.cfg == dict(type='scsa_mm.SCSA', num_heads=4, kernel_sizes=(3, 3, 5, 5), gate='softmax')
    assert options.folder == 'SCSA_num_heads=4_kernel_sizes=_3_3_5_5_gate=softmax'
    assert other.cfg == dict(type='mmpretrain.models.SELayer', ratio=8)


@pytest.mark.parametrize(
    'texts, message',
    [
        (['scssa'], "no attention 'scssa'; did you mean SCSA"),
        (['xyzw'], "no attention 'xyzw'; there are none, CA, "),
        (['WithPlugins'], "no attention 'WithPlugins'"),
        (['mmdet.Nothing'], "no attention 'mmdet.Nothing'"),
        (['SCSA:heads=4'], "SCSA has no option 'heads'; it has num_heads, "),
        (['SCSA:in_channels=4'], "SCSA has no option 'in_channels'"),
        (['SCSA:4'], 'options are NAME:key=value'),
        (['SCSA:num_heads=4)'], 'options are NAME:key=value'),
        (['SCSA:num_heads=open("x")'], 'options are NAME:key=value'),
        (['SCSA:**{"a": 1}'], 'options are NAME:key=value'),
        (['EMA', 'none', 'EMA'], 'EMA is named twice'),
    ],
)
def test_refused_in_one_line(texts, message):
    with pytest.raises(UserError) as caught:
        parse_candidates(texts)
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)
