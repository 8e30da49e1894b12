"""Where the names resolve, and that nothing generic is taken."""

import importlib
import subprocess
import sys

import pytest
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope

import scsa_mm
from scsa_mm.attention import EMA, SCSA
from scsa_mm.registry import MODELS, register_attention

ATTENTION = {n: c for n, c in MODELS.module_dict.items() if c.__module__.startswith('scsa_mm.attention.')}
SCOPES = ['mmengine', 'mmdet', 'mmseg', 'mmpretrain']


@pytest.mark.parametrize('scope', SCOPES)
def test_resolves_under_each_default_scope(scope):
    with DefaultScope.overwrite_default_scope(scope), ROOT.switch_scope_and_registry(None) as registry:
        assert registry.scope == scope
        assert registry.get('SCSA') is SCSA
        assert registry.get('scsa_mm.SCSA') is SCSA
        assert registry.get('scsa_mm.EMA') is EMA


@pytest.mark.parametrize('scope', SCOPES[1:])
def test_the_scoped_name_needs_no_import(scope):
    code = (
        'import sys\n'
        'from mmengine.registry import DefaultScope\n'
        f"DefaultScope.get_instance('test', scope_name='{scope}')\n"
        'from mmcv.cnn import build_plugin_layer\n'
        "assert 'scsa_mm' not in sys.modules\n"
        "name, layer = build_plugin_layer(dict(type='scsa_mm.SCSA'), in_channels=16)\n"
        'print(name, type(layer).__module__, type(layer).__name__)\n'
    )
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.stdout.split() == ['scsa', 'scsa_mm.attention.scsa', 'SCSA'], done.stderr


def test_nothing_generic_in_the_root_registry():
    ours = {n for n, cls in ROOT.module_dict.items() if cls.__module__.startswith('scsa_mm.')}
    assert ours == {'SCSA', 'SMSA', 'PCSA'}
    assert ATTENTION.keys() >= ours


def test_importing_twice_is_harmless():
    before = SCSA
    for module in (scsa_mm.registry, sys.modules['scsa_mm.attention.scsa'], scsa_mm):
        importlib.reload(module)
    try:
        assert ROOT.get('scsa_mm.SCSA').__qualname__ == 'SCSA'
    finally:
        for registry in (ROOT, MODELS):
            registry.register_module(name='SCSA', module=before, force=True)


def test_a_name_of_another_class_is_not_taken_over():
    other = type('SCSA', (), {'__module__': 'somewhere.else'})
    with pytest.raises(KeyError, match='already registered'):
        register_attention(in_root=False)(other)


def test_abbreviations_are_part_of_the_checkpoint_format():
    assert {n: cls._abbr_ for n, cls in ATTENTION.items()} == dict(
        **dict(SCSA='scsa', SMSA='smsa', PCSA='pcsa', EMA='ema', SE='se', ESE='ese', ECA='eca', CBAM='cbam', CA='ca'),
        **dict(ELA='ela', SK='sk', FCA='fca', CPCA='cpca', SA='sa', GC='gc', NonLocal='non_local'),
    )


def test_importing_is_cheap():
    """Neither the mm packages nor timm, triton or matplotlib come with ``import scsa_mm``."""
    code = (
        'import sys, torch, mmengine.registry, mmengine.logging\n'
        'before = set(sys.modules)\n'
        'import scsa_mm\n'
        'print(*{m.split(".")[0] for m in set(sys.modules) - before})\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {'scsa_mm', 'colorsys'}
