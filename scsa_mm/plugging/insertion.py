"""Attention put into a built module by hooks, with the names of everything else as they were."""

from dataclasses import dataclass

from torch import Tensor, nn

from .places import Place
from .trial import Flow, map_size

# Attribute of an inserted attention module: the Place where it acts, by the paths of the model it was put into.
MARK = '_scsa_mm_place'


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


def insert(model: nn.Module, insertion: Insertion) -> 'Passage':
    """Make the attention a child of its owner, and pass what the place names through it."""
    owner, place = model.get_submodule(insertion.owner), insertion.place
    owner.add_module(insertion.name, insertion.attention)
    target = place.target.removeprefix(insertion.owner).removeprefix('.')
    setattr(insertion.attention, MARK, Place(target, place.when, place.output))
    passage = Passage(owner, insertion.name, target, place, insertion.flow.layout)
    passage.attach()
    return passage


def inserted(model: nn.Module) -> dict[str, Place]:
    """Path of every attention module that :func:`insert` put into a model, and where it acts."""
    found = {}
    for path, module in model.named_modules():
        place = getattr(module, MARK, None)
        if place is not None:
            target = '.'.join(part for part in (path.rpartition('.')[0], place.target) if part)
            found[path] = Place(target, place.when, place.output)
    return found


def keep_start(model: nn.Module) -> None:
    """Let the attention start as it wants to, after ``init_weights`` of the model has initialised every layer in it.

    mmengine goes down to ``init_weights`` of a child only where all modules between are its own (MMPretrain's stages
    are plain ``nn.Sequential``), and some hosts initialise all their layers themselves: ``identity_init`` was lost.
    """
    if 'init_weights' not in vars(model):
        model.init_weights = _InitWeights(model)


class _InitWeights:
    """Takes the place of the method in one model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, *args: object, **kwargs: object) -> None:
        method = getattr(type(self.model), 'init_weights', None)
        if method is not None:
            method(self.model, *args, **kwargs)
        init_cfg = getattr(self.model, 'init_cfg', None)
        entries = init_cfg if isinstance(init_cfg, list) else [init_cfg or {}]
        # Pretrained weights may hold the attention's too; mmengine loads them after all else was initialised.
        if not any(entry.get('type') == 'Pretrained' for entry in entries):
            for path in inserted(self.model):
                attention = self.model.get_submodule(path)
                if hasattr(attention, 'init_weights'):
                    attention.init_weights()


class Passage:
    """The hook. It finds the attention by its name in the owner, so that a copy of the owner uses its own attention."""

    def __init__(self, owner: nn.Module, name: str, path: str, place: Place, layout: str) -> None:
        self.owner, self.name, self.path = owner, name, path
        self.when, self.output, self.layout = place.when, place.output, layout
        # SyncBatchNorm conversion, conv-norm fusion and LoRA put another module in a target's place.
        self.following = owner.register_forward_pre_hook(self._follow) if path else None

    def attach(self) -> None:
        self.target = self.owner.get_submodule(self.path)
        # The handle goes where the hook goes: an unpickled one keeps torch from giving its number to another hook.
        if self.when == 'before':
            self.handle = self.target.register_forward_pre_hook(self._before, with_kwargs=True)
        else:
            self.handle = self.target.register_forward_hook(self._after, with_kwargs=True)

    def remove(self) -> None:
        """Take the attention out again."""
        self.handle.remove()
        if self.following is not None:
            self.following.remove()
        delattr(self.owner, self.name)

    def _follow(self, owner: nn.Module, args: tuple) -> None:
        if owner.get_submodule(self.path) is not self.target:
            self.handle.remove()
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
