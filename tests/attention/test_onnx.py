"""Every attention module through ``torch.onnx.export``, with a batch, height and width that the exporter leaves open.

The documented way is ``dynamo=True`` with ``dynamic_shapes``; deployment tools still trace (``dynamo=False``). ONNX
Runtime must agree on sizes other than the exported one, also below SCSA's window, down to one pixel.
"""

import numpy as np
import onnxruntime
import pytest
import torch

from tests.attention.zoo import MODULES, every_module, make

EXPORTED = (2, 9, 11)
SIZES = [(3, 15, 22), (1, 3, 5), (2, 23, 6), (1, 1, 1)]
# Between them: pooling windows, regrouped channels, adaptive bins, another package's layer, a product of all positions.
SAMPLE = {'SCSA', 'EMA', 'FCA', 'ECA', 'NonLocal'}


def export(module, path):
    open_sizes = {0: torch.export.Dim('batch'), 2: torch.export.Dim('height'), 3: torch.export.Dim('width')}
    x = torch.randn(EXPORTED[0], 16, *EXPORTED[1:])
    torch.onnx.export(module, (x,), path, dynamo=True, opset_version=18, dynamic_shapes=(open_sizes,), verbose=False)


def export_by_tracing(module, path):
    open_sizes = {0: 'batch', 2: 'height', 3: 'width'}
    x = torch.randn(EXPORTED[0], 16, *EXPORTED[1:])
    torch.onnx.export(
        module, (x,), path, dynamo=False, opset_version=17, input_names=['x'], dynamic_axes={'x': open_sizes}
    )


def compare(module, path):
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (argument,) = session.get_inputs()
    for batch, height, width in [EXPORTED, *SIZES]:
        x = torch.randn(batch, 16, height, width)
        (found,) = session.run(None, {argument.name: x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, module(x), rtol=1e-4, atol=1e-5, err_msg=f'{height}x{width}')


@pytest.mark.filterwarnings('ignore::FutureWarning')
@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.slow) for name in MODULES]
)
def test_onnxruntime_agrees_on_sizes_that_were_not_exported(name, tmp_path):
    torch.manual_seed(0)
    module, path = make(name, 16).eval(), str(tmp_path / 'module.onnx')
    export(module, path)
    compare(module, path)


@every_module
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning', 'ignore::UserWarning')
def test_onnxruntime_agrees_with_what_the_older_exporter_traced(name, tmp_path):
    torch.manual_seed(0)
    module, path = make(name, 16).eval(), str(tmp_path / 'module.onnx')
    export_by_tracing(module, path)
    compare(module, path)
