"""Attention in every host of hosts.py, by every way; the table in scsa_mm/plugging/HOSTS.md is what this test finds.

``UPDATE_HOSTS_TABLE=1 pytest tests/plugging/test_hosts.py`` writes the table anew.
"""

import os
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import scsa_mm
from scsa_mm.attention import SCSA
from scsa_mm.runtime.errors import UserError
from scsa_mm.runtime.plugins import check_plugins
from tests.plugging.hosts import HOSTS, WAYS, Host

TABLE = Path('scsa_mm/plugging/HOSTS.md')
# What a message of refusal is in the table.
REASONS = {
    'has no residual blocks': 'no residual blocks',
    'come without the (H, W)': 'tokens without the size of their map',
    'is neither a map': 'a vector, not a map',
    'takes no plugins': 'takes none',
    'made of BasicBlock': 'refuses BasicBlock',
    'another number of channels': 'only after_conv3',
}
cells = {}


def build(host: Host, plugins: list | None = None) -> nn.Module:
    cfg = host.cfg if plugins is None else dict(type='scsa_mm.WithPlugins', module=host.cfg, plugins=plugins)
    with DefaultScope.overwrite_default_scope(host.scope), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.manual_seed(0)
        model = MODELS.build(cfg)
    model.eval()
    return model


def outputs(model: nn.Module, host: Host) -> list[torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        y = model(host.inputs())
    return list(y) if isinstance(y, (tuple, list)) else [y]


def attention_of(model: nn.Module) -> dict[str, SCSA]:
    return {name: m for name, m in model.named_modules() if isinstance(m, SCSA)}


def check_acts(host: Host, plugins: list) -> int:
    """The host keeps its names and, with the identity, its function; then every attention changes it and learns."""
    plain, model = build(host), build(host, plugins)
    attention = attention_of(model)
    inner = tuple(f'{name}.' for name in attention)
    model.load_state_dict(plain.state_dict(), strict=False)
    assert [k for k in model.state_dict() if not k.startswith(inner)] == list(plain.state_dict())
    before, identical = outputs(plain, host), outputs(model, host)
    for ours, theirs in zip(identical, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    for name, module in attention.items():
        for p in module.parameters():
            nn.init.normal_(p)
        changed = outputs(model, host)
        assert any(not torch.equal(a, b) for a, b in zip(changed, identical, strict=True)), name
        identical = changed
    for p in model.parameters():
        p.requires_grad_()
    sum((y * torch.randn_like(y)).sum() for y in outputs(model, host)).backward()
    without = [n for n, m in attention.items() if not any(p.grad is not None and p.grad.any() for p in m.parameters())]
    assert not without
    return len(attention)


def reason(error: Exception) -> str:
    found = [short for part, short in REASONS.items() if part in str(error)]
    assert found, error
    return f'no: {found[0]}'


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('host', HOSTS, ids=lambda host: host.name.replace(' ', '-'))
def test_the_table(host, way):
    where = WAYS[way](host)
    try:
        number = check_acts(host, [dict(cfg=dict(type='scsa_mm.SCSA', identity_init=True), **where)])
        cell = f'{number}'
    except ValueError as error:
        cell = reason(error)
    cells[host.name, way] = cell
    if not os.environ.get('UPDATE_HOSTS_TABLE'):
        assert f'| {cell} |' in row_of(host), TABLE


@pytest.mark.parametrize('host', HOSTS, ids=lambda host: host.name.replace(' ', '-'))
def test_plugins_of_the_host_itself(host):
    plugins = [dict(cfg=dict(type='scsa_mm.SCSA'), stages=(True,) * 4, position='after_conv2')]
    cfg = Config(dict(default_scope=host.scope, model=dict(backbone=dict(host.cfg, plugins=plugins))))
    try:
        check_plugins(cfg)
        cell = 'works'
    except UserError as error:
        cell = reason(error)
    cells[host.name, 'plugins'] = cell
    if not os.environ.get('UPDATE_HOSTS_TABLE'):
        assert f'| {cell} |' in row_of(host), TABLE


def row_of(host: Host) -> str:
    return next(line for line in TABLE.read_text().splitlines() if line.startswith(f'| {host.name} |'))


def test_the_table_has_every_host_and_no_other():
    if os.environ.get('UPDATE_HOSTS_TABLE'):
        write_table()
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith('| mm')]
    assert [row.split('|')[1].strip() for row in rows] == [host.name for host in HOSTS]
    for row, host in zip(rows, HOSTS, strict=True):
        assert row.split('|')[4].strip() == f'`{host.pattern}`'


def write_table() -> None:
    head, _, _ = TABLE.read_text().partition('| host |')
    lines = ['| host | `plugins=` of its own | `position` | pattern | `after=` pattern | `outputs` |']
    lines.append('| --- ' * 6 + '|')
    for host in HOSTS:
        by_way = [cells[host.name, way] for way in ('plugins', 'position', 'after', 'outputs')]
        lines.append('| ' + ' | '.join([host.name, *by_way[:2], f'`{host.pattern}`', *by_way[2:]]) + ' |')
    TABLE.write_text(head + '\n'.join(lines) + '\n')


def test_a_refusal_leaves_the_host_as_it_was():
    host = next(h for h in HOSTS if h.name == 'mmdet SwinTransformer')
    model = build(host)
    keys = list(model.state_dict())
    good, bad = (dict(cfg=dict(type='scsa_mm.SCSA'), after=p) for p in ('stages.*.blocks.*', 'stages.*'))
    with pytest.raises(ValueError, match='stages.0: it gives 4 things .*outputs='):
        scsa_mm.add_plugins(model, [good, bad])
    assert list(model.state_dict()) == keys
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
