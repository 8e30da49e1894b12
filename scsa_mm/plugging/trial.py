"""How many channels pass a place, and in which layout: seen in a trial run of the model on two image sizes.

The dimension that stays when the image size changes is the channels. The run is made on a copy on the meta device,
which computes shapes only; on the CPU where the model cannot be run there.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .places import Place

# Different sides, and multiples of 32 for networks that halve five times.
SIZE = (256, 320)

# A shape, a list of what a tuple held, or the name of any other type.
Form = tuple | list | str


@dataclass(frozen=True)
class Flow:
    """What passes a place: its channels, its layout (NCHW, NHWC or NLC), and its shape if the trial reached it."""

    in_channels: int
    layout: str
    shape: tuple[int, ...] | None


@dataclass
class Seen:
    """What went into a module and came out of it, call by call."""

    before: list[Form] = field(default_factory=list)
    after: list[Form] = field(default_factory=list)
    knows_size: bool = True  # every call with tokens had (H, W) among its arguments


def map_size(length: int, arguments: Iterable[object]) -> tuple[int, int] | None:
    """The (H, W) among the arguments of a call whose product is the number of tokens; None without one."""
    for value in arguments:
        if isinstance(value, (tuple, list)) and len(value) == 2 and not any(isinstance(v, float) for v in value):
            h, w = value
            if not isinstance(h, (tuple, list)) and not getattr(h, 'ndim', 0) and h * w == length:
                return h, w
    return None


class Trial:
    """What passes the named modules of a model.

    Args:
        model: Any built module. It is copied, not run or changed itself.
        targets: Paths of modules.
        size: Image height and width of the shapes that :meth:`flow` gives.
    """

    def __init__(self, model: nn.Module, targets: Iterable[str], size: tuple[int, int] | None = None) -> None:
        self.model = model
        self.targets = sorted(set(targets))
        self.failure = ''
        height, width = size or SIZE
        sizes = ((height, width), (height + 128, width + 64))
        self.runs: list[dict[str, Seen]] = []
        for device in ('meta', 'cpu'):
            try:
                host = _copy(model, device)
            except Exception as error:  # a lazily built layer, say: the other device or the layers themselves will tell
                self._note(error)
                continue
            host.train(False)
            runs = [self._run(host, s, device) for s in sizes]
            if not all(map(self._complete, runs)):
                own = (self._run(host, s, device) for s in _own_sizes(host))
                alone = next(filter(self._complete, own), None)
                if alone is None:
                    # Part of the targets is better than none: the rest may say their channels themselves.
                    self.runs = self.runs or runs
                    continue
                runs = [alone]
            self.runs = runs
            return

    def _note(self, error: Exception) -> None:
        lines = str(error).strip().splitlines()
        self.failure = f'{type(error).__name__}: {lines[0] if lines else ""}'[:200]

    def _complete(self, run: dict[str, Seen]) -> bool:
        return all(target in run for target in self.targets)

    def _run(self, host: nn.Module, size: tuple[int, int], device: str) -> dict[str, Seen]:
        seen: dict[str, Seen] = {}
        best: dict[str, Seen] = {}
        handles = [
            host.get_submodule(path).register_forward_hook(_recorder(seen, path), with_kwargs=True)
            for path in self.targets
        ]
        try:
            for attempt in _attempts(host, size, device):
                seen.clear()
                try:
                    with torch.no_grad(), torch.random.fork_rng(devices=[]):
                        attempt()
                except Exception as error:  # the host is a stranger: whatever it raises, this was not its input
                    self._note(error)
                if len(seen) > len(best):
                    best = dict(seen)
                if self._complete(best):
                    break
        finally:
            for handle in handles:
                handle.remove()
        return best

    def calls(self, target: str) -> int:
        """How often a module was called in the first run."""
        return len(self.runs[0][target].before) if self.runs and target in self.runs[0] else 0

    def outputs(self, target: str) -> int | None:
        """Number of entries of the tuple or list that a module gives; None if it gives one tensor.

        Raises:
            ValueError: if the trial run did not reach it.
        """
        if not self.runs or target not in self.runs[0]:
            raise ValueError(self._unreached(f'the outputs of {target or "the whole module"}'))
        form = self.runs[0][target].after[0]
        return len(form) if isinstance(form, list) else None

    def flow(self, place: Place) -> Flow:
        """Channels and layout of what passes a place.

        Raises:
            ValueError: if that is no map and no tokens of a map, or cannot be found out.
        """
        seen = [run[place.target] for run in self.runs if place.target in run]
        if not seen:
            return self._declared(place)
        calls = list(zip(*(_forms(s, place) for s in seen), strict=False))
        found = {_layout(forms, place) for forms in calls}
        if len(found) > 1:
            widths = ', '.join(str(channels) for channels, _ in sorted(found))
            raise ValueError(
                f'{place}: it is called {len(calls)} times with different channels ({widths}), so no one attention '
                'fits; name a module that is called with one width'
            )
        channels, layout = found.pop()
        if layout == 'NLC' and not all(s.knows_size for s in seen):
            raise ValueError(
                f'{place}: tokens {calls[0][0]} come without the (H, W) of their map (a class token or a sequence of '
                "windows has none), so spatial attention cannot act; use outputs='all' where the module gives maps"
            )
        return Flow(channels, layout, calls[0][0])

    def _unreached(self, what: str) -> str:
        reason = f' (it ended with {self.failure})' if self.failure else ''
        return f'{what}: not reached in a trial run{reason}'

    def _declared(self, place: Place) -> Flow:
        """By what the layer says of itself, for modules such as RoI heads that no plain trial run reaches."""
        module = self.model.get_submodule(place.target)
        name = 'in_channels' if place.when == 'before' else 'out_channels'
        channels = getattr(module, name, None)
        if any(isinstance(m, nn.Conv2d) for m in module.modules()) and isinstance(channels, int):
            return Flow(channels, 'NCHW', None)
        if isinstance(module, nn.BatchNorm2d):
            return Flow(module.num_features, 'NCHW', None)
        raise ValueError(
            self._unreached(str(place)) + f', and {type(module).__name__} does not say how many channels it has'
        )


def _copy(model: nn.Module, device: str) -> nn.Module:
    """A copy of the model; on the meta device without a copy of its weights."""
    tensors = [*model.parameters(), *model.buffers()] if device == 'meta' else []
    memo = {}
    for tensor in tensors:
        empty = torch.empty_like(tensor, device='meta')
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, memo).to(device)


def _recorder(seen: dict[str, Seen], path: str) -> Callable:
    def hook(module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        note = seen.setdefault(path, Seen())
        note.before.append(_form(args[0]) if args else 'no positional argument')
        note.after.append(_form(output))
        for form in (note.before[-1], note.after[-1]):
            if isinstance(form, tuple) and len(form) == 3:
                note.knows_size &= map_size(form[1], [*args, *kwargs.values()]) is not None

    return hook


def _form(value: object) -> Form:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (tuple, list)):
        return [_form(v) for v in value]
    return type(value).__name__


def _forms(seen: Seen, place: Place) -> list[Form]:
    forms = seen.before if place.when == 'before' else seen.after
    return forms if place.output is None else [form[place.output] for form in forms]


def _layout(forms: tuple[Form, ...], place: Place) -> tuple[int, str]:
    """Channels and layout from the forms of one call at each image size."""
    first, last = forms[0], forms[-1]
    if isinstance(first, list):
        raise ValueError(
            f'{place}: it gives {len(first)} things ({", ".join(map(str, first))}), not one map; where they are maps, '
            "say which ones pass attention: outputs=(0, 1) or outputs='all'"
        )
    if isinstance(first, tuple) and isinstance(last, tuple) and len(first) == len(last):
        layout = {3: _of_tokens, 4: _of_maps}.get(len(first), lambda *_: None)(first, last)
        if layout is not None and first[0] == 1:  # more than the one image are windows or regions of it
            return first[layout.index('C')], layout
    raise ValueError(
        f'{place}: {" or ".join(map(str, dict.fromkeys(map(str, forms))))}, depending on the image, is neither a map '
        '(N, C, H, W) or (N, H, W, C) nor the tokens (N, L, C) of one'
    )


def _of_maps(first: tuple[int, ...], last: tuple[int, ...]) -> str | None:
    _, a, b, c = (x == y for x, y in zip(first, last, strict=True))
    if a and b and c:  # one square image, or a map of one size: the two equal sides are height and width
        _, x, y, z = first
        a, c = y == z != x, x == y != z
    return 'NCHW' if a else 'NHWC' if c else None


def _of_tokens(first: tuple[int, ...], last: tuple[int, ...]) -> str | None:
    # Tokens of one image size cannot be told from windows here; whether the call knows (H, W) decides.
    return 'NLC' if first[2] == last[2] and (first[1] != last[1] or first == last) else None


def _attempts(host: nn.Module, size: tuple[int, int], device: str) -> Iterator[Callable[[], object]]:
    """Ways of calling a backbone, a neck, a head or a whole model; the right one is known by its not failing."""
    dtype = next((p.dtype for p in host.parameters() if p.is_floating_point()), torch.float32)
    first = next((m.in_channels for m in host.modules() if isinstance(m, nn.Conv2d)), 3)
    images = [torch.zeros(1, c, *size, dtype=dtype, device=device) for c in dict.fromkeys((3, first))]
    if isinstance(getattr(host, 'backbone', None), nn.Module):
        for image in images:
            yield lambda image=image: _run_model(host, image)
        return
    channels = getattr(host, 'in_channels', None)
    maps = [m.to(dtype) for m in _maps(channels, getattr(host, 'in_index', None), size, device)]
    from_image = [lambda image=image: host(image) for image in images]
    from_maps = [lambda: host(maps)] * bool(maps)
    if isinstance(channels, int) and maps:
        from_maps.append(lambda: host(maps[-1]))
    # A dense head would take an image apart as if it were its levels.
    yield from (from_image + from_maps) if channels == 3 else (from_maps + from_image)


def _own_sizes(host: nn.Module) -> list[tuple[int, int]]:
    """Image sizes of models that take one only, such as those with position embeddings."""
    stated = next((m.img_size for m in host.modules() if hasattr(m, 'img_size')), 224)
    return [tuple(stated) if isinstance(stated, (list, tuple)) else (stated, stated), (224, 224)]


def _maps(channels: object, index: object, size: tuple[int, int], device: str) -> list[Tensor]:
    """A pyramid from stride 4 on with the widths that a neck or a head declares."""
    if isinstance(channels, int):
        levels = (index if isinstance(index, int) and index >= 0 else 0) + 1
        channels = [channels] * levels
    elif not (isinstance(channels, (list, tuple)) and all(isinstance(c, int) for c in channels)):
        return []
    return [
        torch.zeros(1, c, size[0] // 2 ** (i + 2), size[1] // 2 ** (i + 2), device=device)
        for i, c in enumerate(channels)
    ]


def _run_model(model: nn.Module, image: Tensor) -> None:
    """Backbone, neck and every dense head of a detector, segmentor or classifier."""
    x = model.backbone(image)
    if isinstance(getattr(model, 'neck', None), nn.Module):
        x = model.neck(x)
    errors = []
    for name, head in model.named_children():
        if name.endswith('head'):
            try:
                head(x)
            except Exception as error:  # a RoI head wants proposals, others their targets; go on with the next
                errors.append(error)
    if errors:
        raise errors[0]
