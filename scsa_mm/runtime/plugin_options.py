"""``--plugin SCSA`` on the command line: attention in the model of any config, without editing a file."""

import argparse
import ast
import inspect

from mmengine.config import Config

from ..registry import MODELS
from .errors import UserError

WRAPPER = 'scsa_mm.WithPlugins'


def add_plugin_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('attention', 'put into the model of the config, beside any that it has')
    group.add_argument(
        '--plugin',
        action='append',
        metavar='NAME[:KEY=VALUE,...]',
        help='e.g. SCSA, EMA:groups=8, ContextBlock:ratio=0.25; several --plugin act in their order',
    )
    group.add_argument('--plugin-position', metavar='after_convN', help='in residual blocks; default: as in the paper')
    group.add_argument('--plugin-stages', type=_numbers, metavar='2,3,4', help='stages from 1; default: all')
    group.add_argument('--plugin-before', metavar='PATTERN', help="names of modules, e.g. 'stages.*.blocks.*'")
    group.add_argument('--plugin-after', metavar='PATTERN', help='the same, acting on the output')
    group.add_argument('--plugin-outputs', type=_outputs, metavar='0,1|all', help='which maps that the module gives')
    group.add_argument(
        '--plugin-host',
        default='model.backbone',
        metavar='PATH',
        help='default: model.backbone; or model.neck, model ...',
    )


def use_plugins(cfg: Config, args: argparse.Namespace) -> list[str]:
    """Wrap the host in the config as the command line asks; returns what is worth saying about it.

    Raises:
        UserError: if an option is given without ``--plugin``, or the host is not in the config.
    """
    options = ('position', 'stages', 'before', 'after', 'outputs')
    where = {k: v for k in options if (v := getattr(args, f'plugin_{k}')) is not None}
    if not args.plugin:
        if where:
            raise UserError(f'--plugin-{next(iter(where))} says where attention goes; --plugin NAME says which')
        return []
    parent, _, key = args.plugin_host.rpartition('.')
    holder = _at(cfg, parent)
    host = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(host, dict) or 'type' not in host:
        there = (
            [k for k, v in holder.items() if isinstance(v, dict) and 'type' in v] if isinstance(holder, dict) else []
        )
        choice = f'; there are {", ".join(f"{parent}.{k}" for k in there)}' if there else ''
        raise UserError(f'--plugin-host {args.plugin_host}: this config has no module there{choice}')
    plugins, notes = [], []
    for text in args.plugin:
        name, values = parse_attention(text)
        attention = dict(type=f'scsa_mm.{name}' if name in MODELS.module_dict else name, **values)
        if _starts_pretrained(cfg, host) and _has_identity(attention['type']) and 'identity_init' not in attention:
            attention['identity_init'] = True
            notes.append(
                f'{args.plugin_host} starts from pretrained weights, so {attention["type"]} starts as the identity '
                f'(--plugin {text}{"," if ":" in text else ":"}identity_init=False would not)'
            )
        plugins.append(dict(cfg=attention, **where))
    if host.get('plugins'):
        notes.append(f'{args.plugin_host} has plugins of its own; those of --plugin are added to them')
    if host['type'] == WRAPPER:
        host['plugins'] = [*host['plugins'], *plugins]
    else:
        holder[key] = dict(type=WRAPPER, module=host, plugins=plugins)
    return notes


def parse_attention(text: str) -> tuple[str, dict]:
    """``NAME`` or ``NAME:key=value,key=value`` as the name and its options.

    Values are Python literals; a word needs no quotes, which a shell would take away.

    Raises:
        UserError: if it is not of that form.
    """
    name, colon, options = text.partition(':')
    try:
        call = ast.parse(f'dict({options})', mode='eval').body
        values = {k.arg: _value(k.value) for k in call.keywords}
        if not name or call.args or None in values or (colon and not values):
            raise ValueError
    except (SyntaxError, ValueError):
        raise UserError(
            f'{text!r}: options are NAME:key=value,key=value, e.g. SCSA:num_heads=4,identity_init=True'
        ) from None
    return name, values


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.Name):
        return {'true': True, 'false': False, 'none': None}.get(node.id.lower(), node.id)
    return ast.literal_eval(node)


def _at(cfg: Config, path: str) -> object:
    node: object = cfg
    for part in filter(None, path.split('.')):
        node = node.get(part) if isinstance(node, (dict, Config)) else None
    return node._cfg_dict if isinstance(node, Config) else node


def _starts_pretrained(cfg: Config, host: dict) -> bool:
    # mmseg has `pretrained` beside the backbone.
    return bool(cfg.get('load_from') or cfg.model.get('pretrained')) or _names_weights(host)


def _names_weights(node: object) -> bool:
    if isinstance(node, dict):
        return (
            node.get('type') == 'Pretrained' or bool(node.get('pretrained')) or any(map(_names_weights, node.values()))
        )
    return isinstance(node, (list, tuple)) and any(map(_names_weights, node))


def _has_identity(name: str) -> bool:
    cls = MODELS.get(name)
    return cls is not None and 'identity_init' in inspect.signature(cls.__init__).parameters


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected numbers with commas, such as 2,3,4; got {text!r}') from None


def _outputs(text: str) -> tuple[int, ...] | str:
    return text if text == 'all' else _numbers(text)
