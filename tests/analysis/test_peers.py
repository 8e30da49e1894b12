"""Outside implementations: found, refused in one line, and in a comparison."""

import argparse

import pytest

from scsa_mm.analysis.peers import add_peer_arguments, load_peers
from scsa_mm.runtime.errors import UserError

SOURCE = """
from torch import nn
from beside import SIZE

class SCSA(nn.Module):
    def __init__(self, dim, head_num, kernels=(3,), mode='a'):
        super().__init__()
        if dim % head_num:
            raise AssertionError('heads must\\ndivide')
        self.conv, self.options = nn.Conv2d(dim, SIZE, 1), (head_num, kernels, mode)

number = 1
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / 'beside.py').write_text('SIZE = 3')
    (tmp_path / 'peer.py').write_text(SOURCE)
    return tmp_path / 'peer.py'


def parse(*args):
    parser = argparse.ArgumentParser()
    add_peer_arguments(parser)
    return load_peers(parser.parse_args(list(map(str, args))).peer)


def test_kwargs_belong_to_the_peer_before_them(file):
    given = ['--peer-kwargs', 'head_num=2 kernels=[3,5]', 'mode=b']
    first, second = parse('--peer', f'{file}:SCSA', *given, '--peer', f'EMA={file}:SCSA', '--peer-kwargs', 'head_num=1')
    assert (first.operator, second.operator) == ('SCSA', 'EMA')
    assert first.label == "peer.py:SCSA(head_num=2, kernels=[3, 5], mode='b')"
    module = first.build(4)
    assert module.conv.in_channels == 4 and module.conv.out_channels == 3 and module.options == (2, [3, 5], 'b')
    first.check(4)
    with pytest.raises(UserError, match=r'--peer peer.py:SCSA\(.*\) with 3 channels: heads must divide$'):
        first.check(3)


def test_no_peer():
    assert parse() == []


def test_kwargs_without_a_peer(file, capsys):
    with pytest.raises(SystemExit):
        parse('--peer-kwargs', 'a=1')
    assert '--peer-kwargs belongs to the --peer before it' in capsys.readouterr().err


@pytest.mark.parametrize(
    'text, message',
    [
        ('FILE', 'an implementation is written as FILE.py:CLASS'),
        ('nowhere.py:SCSA', 'nowhere.py does not exist'),
        ('FILE:Missing', 'has no class Missing that is a torch.nn.Module'),
        ('FILE:number', 'has no class number that is a torch.nn.Module'),
        ('BAD:SCSA', "No module named 'no_such_package'"),
    ],
)
def test_refused(file, text, message):
    bad = file.with_name('bad.py')
    bad.write_text('import no_such_package')
    with pytest.raises(UserError, match=message) as caught:
        parse('--peer', text.replace('FILE', str(file)).replace('BAD', str(bad)))
    assert '\n' not in str(caught.value)


def test_refused_kwargs(file):
    for kwargs in (['head_num'], ['head_num='], ["a='"]):
        with pytest.raises(UserError, match='--peer-kwargs .*: arguments are key=value key=value'):
            parse('--peer', f'{file}:SCSA', '--peer-kwargs', *kwargs)
    (peer,) = parse('--peer', f'{file}:SCSA', '--peer-kwargs', 'heads=1')
    with pytest.raises(UserError, match="unexpected keyword argument 'heads'"):
        peer.check(4)
    with pytest.raises(UserError, match='peer.py:SCSA is named twice'):
        parse('--peer', f'{file}:SCSA', '--peer', f'{file}:SCSA')
