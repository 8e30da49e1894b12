"""Attention put into a built module by hooks, with the names of everything else as they were."""

from dataclasses import dataclass

from torch import Tensor, nn

from .places import Place
from .trial import Flow, map_size


@dataclass(frozen=True)
class Insertion:
    """One attention module and where it is to stand.

    Args:
        owner: Path of the module that holds it; ``''`` is the model itself.
        name: Its name in the owner, which makes the names of its parameters.
        place: What passes through it.
        flow: Channels and layout there.
        attention: The module.
    """

    owner: str
    name: str
    place: Place
    flow: Flow
    attention: nn.Module

    @property
    def path(self) -> str:
        return f'{self.owner}.{self.name}' if self.owner else self.name


def insert(model: nn.Module, insertion: Insertion) -> None:
    """Make the attention a child of its owner, and pass what the place names through it."""
    owner = model.get_submodule(insertion.owner)
    owner.add_module(insertion.name, insertion.attention)
    target = insertion.place.target.removeprefix(insertion.owner).removeprefix('.')
    _Passage(owner, insertion.name, target, insertion.place, insertion.flow.layout).attach()


def inserted(model: nn.Module) -> dict[str, Place]:
    """Path of every attention module that :func:`insert` put into a model, and where it acts."""
    paths = {module: path for path, module in model.named_modules()}
    found = {}
    for path, module in model.named_modules():
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            passage = getattr(hook, '__self__', None)
            if isinstance(passage, _Passage) and passage.target is module:
                owner = paths[passage.owner]
                name = f'{owner}.{passage.name}' if owner else passage.name
                found[name] = Place(path, passage.when, passage.output)
    return found


def keep_start(model: nn.Module, insertion: Insertion) -> None:
    """Let the attention start as it wants to, after ``init_weights`` of its hosts has initialised every layer in them.

    mmengine goes down to ``init_weights`` of a child only where all modules between are its own; MMPretrain's stages
    are plain ``nn.Sequential``, and what is in them would lose ``identity_init``.
    """
    parts = insertion.owner.split('.') if insertion.owner else []
    for end in range(len(parts) + 1):
        host = model.get_submodule('.'.join(parts[:end]))
        entries = getattr(host, 'init_cfg', None)
        if entries and not isinstance(entries, list):
            entries = [entries]
        if entries and not any(e['type'] in (_RestoreStart, 'Pretrained') for e in entries):
            host.init_cfg = [*entries, dict(type=_RestoreStart)]


class _RestoreStart:
    """An entry of ``init_cfg``."""

    def __call__(self, host: nn.Module) -> None:
        for path in inserted(host):
            attention = host.get_submodule(path)
            if hasattr(attention, 'init_weights'):
                attention.init_weights()


class _Passage:
    """The hook. It finds the attention by its name in the owner, so that a copy of the owner uses its own attention."""

    def __init__(self, owner: nn.Module, name: str, path: str, place: Place, layout: str) -> None:
        self.owner, self.name, self.path = owner, name, path
        self.when, self.output, self.layout = place.when, place.output, layout
        self.target: nn.Module | None = None

    def attach(self) -> None:
        first = self.target is None
        self.target = self.owner.get_submodule(self.path)
        # The handle goes where the hook goes: an unpickled one keeps torch from giving its number to another hook.
        if self.when == 'before':
            self.handle = self.target.register_forward_pre_hook(self._before, with_kwargs=True)
        else:
            self.handle = self.target.register_forward_hook(self._after, with_kwargs=True)
        if first and isinstance(self.target, nn.modules.batchnorm._NormBase):
            # SyncBatchNorm conversion and conv-norm fusion put another module in the norm's place.
            self.owner.register_forward_pre_hook(self._follow)

    def _follow(self, owner: nn.Module, args: tuple) -> None:
        if owner.get_submodule(self.path) is not self.target:
            self.attach()

    def _before(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return (self._attend(args[0], args, kwargs), *args[1:]), kwargs

    def _after(self, module: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple | list) -> object:
        if self.output is None:
            return self._attend(output, args, kwargs)
        entries = list(output)
        entries[self.output] = self._attend(entries[self.output], args, kwargs)
        return type(output)(entries) if type(output) in (tuple, list) else type(output)(*entries)

    def _attend(self, x: Tensor, args: tuple, kwargs: dict) -> Tensor:
        attention = getattr(self.owner, self.name)
        if self.layout == 'NCHW':
            return attention(x)
        if self.layout == 'NHWC':
            return attention(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        size = map_size(x.shape[1], [*args, *kwargs.values()])
        return attention(x.transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2)
