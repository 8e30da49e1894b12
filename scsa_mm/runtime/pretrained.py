"""What of a model comes from the pretrained weights that its config names, and what is new."""

from collections.abc import Iterator

from mmengine.runner import CheckpointLoader
from torch import nn

from .checkpoints import is_local, read_checkpoint, weights_of
from .report import attention_in


def describe_pretrained(model: nn.Module) -> Iterator[str]:
    """One line for each part of the model whose ``init_cfg`` is ``Pretrained``; the weights are read for it.

    Raises:
        UserError: if a checkpoint is not there or no checkpoint.
        URLError: if it cannot be downloaded.
    """
    for path, module in model.named_modules():
        cfg = getattr(module, 'init_cfg', None)
        if isinstance(cfg, dict) and cfg.get('type') == 'Pretrained':
            yield _describe(path, module, cfg['checkpoint'], cfg.get('prefix') or '')


def _describe(path: str, module: nn.Module, checkpoint: str, prefix: str) -> str:
    where = path.removeprefix('module.') or 'the model'
    if getattr(module, 'convert_weights', False):
        return f'{where}: starts from {checkpoint}, whose names it converts itself'
    read = read_checkpoint if is_local(checkpoint) else CheckpointLoader.load_checkpoint
    found = weights_of(read(checkpoint))
    prefix = prefix if not prefix or prefix.endswith('.') else f'{prefix}.'
    inside = {name.removeprefix(prefix): value.shape for name, value in found.items() if name.startswith(prefix)}
    own = {name: value.shape for name, value in module.state_dict().items()}
    loaded = [name for name in own if inside.get(name) == own[name]]
    if not loaded:
        example = next(iter(found), 'no tensor')
        below = f' below {prefix}' if prefix else ''
        return (
            f'{where}: NO tensor of {checkpoint} has a name and shape of its own{below}; it holds e.g. {example}. '
            'Unless the model converts names itself, it starts from scratch'
        )
    missing = [name for name in own if name not in set(loaded)]
    attention = tuple(attention_in(module))
    new = [name for name in missing if name.startswith(tuple(f'{a}.' for a in attention))]
    modules = [a for a in attention if any(name.startswith(f'{a}.') for name in new)]
    parts = [f'{where}: {len(loaded)} of {len(own)} tensors come from {checkpoint}']
    if new:
        parts.append(f'new: {len(new)} in {len(modules)} attention modules, e.g. {modules[0]}')
    other = [name for name in missing if name not in set(new)]
    if other:
        parts.append(f'not in it or of another shape: {len(other)}, e.g. {other[0]}')
    unused = [name for name in inside if name not in own]
    if unused:
        parts.append(f'not used: {len(unused)}, e.g. {prefix}{unused[0]}')
    return '; '.join(parts)
