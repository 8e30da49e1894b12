"""What attention is compared in: a feature map, a backbone, or the model of a config."""

import ast
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..plugging import add_plugins
from ..runtime.errors import UserError, one_line
from .annotations import annotations
from .candidates import Candidate


@dataclass(frozen=True)
class Host:
    """Where the candidates are measured.

    Args:
        name: What the user calls it.
        measured: What is run, in words; also what the baseline is.
        x: Its input.
        build: Makes the module for a candidate, which takes ``x``. It raises what the attention raises.
        cfg: Config of the model without attention; None for one module alone.
        whole_step: The module gives its loss while training and predicts else, and an optimizer belongs to the step.
    """

    name: str
    measured: str
    x: Tensor
    build: Callable[[Candidate], nn.Module]
    cfg: dict | None = None
    whole_step: bool = False


class Copy(nn.Module):
    """The baseline of one module alone: a plain copy of the input, since attention too reads and writes its map."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class Part(nn.Module):
    """The part of a model that can be run on images alone."""

    def __init__(self, model: nn.Module, run: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, x: Tensor) -> object:
        return self.run(self.model, x)


class Annotated(nn.Module):
    """A model with annotations: its loss while training, else its predictions."""

    def __init__(self, model: nn.Module, samples: list[BaseDataElement]) -> None:
        super().__init__()
        self.model, self.samples = model, samples
        self.device = torch.device('cpu')  # of the samples, which are no buffers

    def forward(self, x: Tensor) -> object:
        if self.device != x.device:
            self.samples = [sample.to(x.device) for sample in self.samples]
            self.device = x.device
        if self.training:
            return self.model.parse_losses(self.model(x, self.samples, mode='loss'))[0]
        return self.model(x, self.samples, mode='predict')


def _whole(model: nn.Module, x: Tensor) -> object:
    return model(x, mode='tensor')


def _features(model: nn.Module, x: Tensor) -> object:
    return model.extract_feat(x)


def _backbone(model: nn.Module, x: Tensor) -> object:
    return model.backbone(x)


def _directly(model: nn.Module, x: Tensor) -> object:
    return model(x)


WHOLE_STEP = 'the whole model: losses on made-up annotations, backward and plain SGD; and prediction'

# From the most to the least. Two-stage detectors cannot run their RoI heads without annotations, nor DETR its decoder.
PARTS = {
    "the whole model (mode='tensor', without losses)": _whole,
    'its backbone and neck (its heads need annotations)': _features,
    'its backbone': _backbone,
}


def one_module(shape: Sequence[int]) -> Host:
    """Attention alone on a feature map.

    Args:
        shape: (N, C, H, W).

    Raises:
        UserError: if the shape is not four positive numbers.
    """
    if len(shape) != 4 or min(shape) < 1:
        raise UserError(f'--shape is N C H W, all at least 1; got {" ".join(map(str, shape))}')

    def build(candidate: Candidate) -> nn.Module:
        torch.manual_seed(0)
        return Copy() if candidate.cfg is None else MODELS.build(dict(candidate.cfg, in_channels=shape[1]))

    # In a network the gradient goes on to the layers before.
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return Host(f'one module, map {tuple(shape)}', 'the module alone; none is a plain copy of its input', x, build)


def in_model(
    name: str,
    cfg: dict,
    scope: str,
    plugin: dict,
    batch_size: int,
    image_size: tuple[int, int],
    whole_step: bool = False,
) -> Host:
    """Attention in a backbone or a whole model.

    Args:
        name: What the user calls it.
        cfg: The config of the backbone or model.
        scope: The default scope for the types in it.
        plugin: Where, as for :func:`scsa_mm.add_plugins`, without ``cfg``.
        batch_size: Images.
        image_size: Their height and width.
        whole_step: Measure losses on made-up annotations, backward and optimizer, and prediction.

    Raises:
        UserError: if the model cannot be built or run without attention, or has plugins already.
    """
    check_no_plugins(cfg, name)
    if batch_size < 1 or min(image_size) < 1:
        raise UserError(f'--batch-size and --image-size are at least 1; got {batch_size} and {tuple(image_size)}')

    def bare() -> nn.Module:
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy(cfg))  # mmseg writes into the config what it must not find a second time
        return revert_sync_batchnorm(model)  # which works in groups of processes only

    with DefaultScope.overwrite_default_scope(scope):
        try:
            model = bare()
            model.eval()  # of mmdet's ResNet it returns None
        except Exception as error:  # a config is a program of the user's: anything can go wrong in it
            raise UserError(f'{name} cannot be built: {one_line(error)}') from error
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        x = torch.randn(
            batch_size, first.in_channels if first else 3, *image_size, generator=torch.Generator().manual_seed(0)
        )
        if whole_step:
            measured, samples = WHOLE_STEP, annotations(scope, cfg, name, x)
        else:
            measured, run = _runnable(model, name, x[:1])

    def build(candidate: Candidate) -> nn.Module:
        with DefaultScope.overwrite_default_scope(scope):
            model = bare()
            if candidate.cfg is not None:
                add_plugins(model, [dict(plugin, cfg=candidate.cfg)])
        return Annotated(model, [s.clone() for s in samples]) if whole_step else Part(model, run)

    return Host(name, measured, x, build, cfg, whole_step)


def _runnable(model: nn.Module, name: str, x: Tensor) -> tuple[str, Callable]:
    parts = PARTS if hasattr(model, 'backbone') else {'the module itself': _directly}
    for measured, run in parts.items():
        try:
            with torch.no_grad():
                run(model, x)
            return measured, run
        except Exception as error:  # whatever it needs beside images, there is none of it here
            last = error
    raise UserError(f'{name} cannot be run on {tuple(x.shape)}: {one_line(last)}') from last


def check_no_plugins(cfg: dict, name: str) -> None:
    """Raise UserError if a model has plugins: attention would be compared on top of other attention."""
    path = next(_plugins(cfg, 'model' if 'backbone' in cfg else ''), None)
    if path:
        way_out = f'take them out: --cfg-options {path}=None' if 'backbone' in cfg else 'leave them out'
        raise UserError(f'{name} has plugins already, so none would not be without attention; {way_out}')


def _plugins(node: object, path: str) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get('plugins'):
            yield f'{path}.plugins'.lstrip('.')
        for key, value in node.items():
            yield from _plugins(value, f'{path}.{key}')


def parse_module(text: str) -> dict:
    """``mmdet.ResNet(depth=50)`` as a config.

    Raises:
        UserError: if it is not a name with keyword arguments of plain values.
    """
    try:
        call = ast.parse(text, mode='eval').body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        return dict(type=ast.unparse(call.func), **{k.arg: ast.literal_eval(k.value) for k in call.keywords})
    except (SyntaxError, TypeError, ValueError):
        raise UserError(f'{text}: a module is written as mmdet.ResNet(depth=50)') from None


def model_of(cfg: Config, name: str) -> dict:
    """The model in a config; UserError without one that has a backbone."""
    model = cfg.get('model')
    if not isinstance(model, dict) or not isinstance(model.get('backbone'), dict):
        raise UserError(f'{name} has no model.backbone to put attention into')
    return model
