"""Modules that timm or mmcv compute: when the package is missing, and what else a config or checkpoint depends on."""

import keyword
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmcv.cnn import build_plugin_layer

from scsa_mm import attention
from scsa_mm.attention import ECA, ESE, GC, SE, NonLocal
from scsa_mm.attention._adapter import INSTALL
from scsa_mm.registry import MODELS
from tests.attention.zoo import MODULES, class_of

ROOT = Path(__file__).parents[2]
LAYERS = {
    SE: 'fc1.weight fc2.weight',
    ESE: 'fc.weight fc.bias',
    ECA: 'conv.weight',
    GC: 'conv_mask.weight conv_mask.bias channel_add_conv.0.weight channel_add_conv.0.bias channel_add_conv.1.weight '
    'channel_add_conv.1.bias channel_add_conv.3.weight channel_add_conv.3.bias',
    NonLocal: 'g.conv.weight g.conv.bias conv_out.conv.weight conv_out.conv.bias theta.conv.weight theta.conv.bias '
    'phi.conv.weight phi.conv.bias',
}


@pytest.mark.parametrize('cls', LAYERS)
def test_parameter_names_are_part_of_the_checkpoint_format(cls):
    assert list(cls(64).state_dict()) == [f'layer.{name}' for name in LAYERS[cls].split()]


@pytest.mark.parametrize('cls, package', [(SE, 'timm'), (ESE, 'timm'), (ECA, 'timm'), (GC, 'mmcv'), (NonLocal, 'mmcv')])
def test_a_missing_package_is_named_with_what_to_install(cls, package, monkeypatch):
    for module in [name for name in sys.modules if name.split('.')[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    message = f'^{cls.__name__} is built from {package}.*: pip install {package}=='
    with pytest.raises(ImportError, match=message) as raised:
        cls(64)
    assert '\n' not in str(raised.value)


def test_the_version_to_install_is_the_tested_one():
    pins = (ROOT / 'constraints.txt').read_text().splitlines()
    assert all(command.removeprefix('pip install ') in pins for command in INSTALL.values())


def test_the_other_modules_need_neither_package():
    own = {name: class_of(name) for name in MODULES if class_of(name) not in LAYERS}
    code = (
        'import sys\n'
        "sys.modules['timm'] = sys.modules['mmcv'] = None\n"
        'import scsa_mm.attention as attention\n'
        f'for name in {sorted({cls.__name__ for cls in own.values()})}:\n'
        '    getattr(attention, name)(256)\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('cls', sorted({class_of(name) for name in MODULES}, key=lambda cls: cls.__name__))
def test_a_host_builds_it_and_names_it_by_its_abbreviation(cls):
    attribute, module = build_plugin_layer(dict(type=f'scsa_mm.{cls.__name__}'), '_a', in_channels=256)
    assert attribute == f'{cls._abbr_}_a'
    assert type(module).__name__ == cls.__name__


def test_abbreviations_differ_and_are_attributes():
    abbreviations = [cls._abbr_ for cls in set(MODELS.module_dict.values()) if hasattr(cls, '_abbr_')]
    assert len(set(abbreviations)) == len(abbreviations)
    # An attribute of the host: torch.fx writes it into Python code.
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in abbreviations)


@pytest.mark.parametrize('in_channels', [49, 50, 98])
def test_gc_has_the_hidden_channels_that_its_docstring_says(in_channels):
    for reduction in (7, 16, 49):
        assert GC(in_channels, reduction).layer.planes == in_channels // reduction


def test_the_readme_names_every_module():
    rows = re.findall(r'^\| (\w+) \| .*\(?https', Path('scsa_mm/attention/README.md').read_text(), re.M)
    assert set(rows) | {'SMSA', 'PCSA'} == set(attention.__all__)
