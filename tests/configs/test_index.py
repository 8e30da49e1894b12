"""Config files, model index and README tell the same."""

from pathlib import Path

import modelindex
import pytest
import yaml

from scsa_mm.analysis.complexity import complexity_of
from scsa_mm.runtime.config import load_config
from tests.conftest import ROOT

MODELS = {m['Name']: m for m in yaml.safe_load(Path('configs/metafile.yml').read_text())['Models']}
CONFIGS = sorted(p.stem for p in Path('configs').glob('*.py'))


def test_every_config_is_in_the_index():
    assert sorted(MODELS) == CONFIGS
    assert all(Path(m['Config']).is_file() for m in MODELS.values())


def test_the_readme_has_the_table_of_the_index():
    import importlib.util

    spec = importlib.util.spec_from_file_location('model_index', ROOT / 'tools/analysis/model_index.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.table([MODELS[name] for name in CONFIGS]) in Path('configs/README.md').read_text()


def test_openmmlabs_reader_takes_the_index():
    index = modelindex.load('model-index.yml')
    index.build_models_with_collections()
    assert sorted(m.name for m in index.models) == CONFIGS
    assert {m.in_collection for m in index.models} == {'SCSA', 'EMA'}


@pytest.mark.parametrize(
    'name', [n if n == 'yolox_s_ema_visdrone' else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS]
)
def test_counts(name):
    found, meta = complexity_of(load_config(f'configs/{name}.py')), MODELS[name]['Metadata']
    assert (found.parameters, found.attention) == (meta['Parameters'], meta['Parameters in Attention'])
    # The number of proposals of untrained RPNs depends on the last bits.
    assert found.flops == pytest.approx(meta['FLOPs'], rel=0.02)
