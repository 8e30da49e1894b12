"""What importing the evaluation brings in, and that it works without MMDetection."""

import subprocess
import sys

import pytest

WITHOUT_MMDET = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'mmdet' else find(name, *rest)
import scsa_mm.evaluation
assert scsa_mm.evaluation.VisDroneMetric and not hasattr(scsa_mm.evaluation, 'CocoMaxDetsMetric')
assert 'mmdet' not in sys.modules
"""


def run(code):
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_without_mmdet():
    run(WITHOUT_MMDET)


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet'])
def test_the_scoped_names_need_no_import(scope):
    run(
        'import sys\n'
        'from mmengine.registry import METRICS, DefaultScope\n'
        f"DefaultScope.get_instance('test', scope_name='{scope}')\n"
        "assert 'scsa_mm' not in sys.modules\n"
        "METRICS.build(dict(type='scsa_mm.CocoMaxDetsMetric'))\n"
        "METRICS.build(dict(type='scsa_mm.VisDroneMetric', outfile_prefix='x'))\n"
    )


def test_the_package_alone_imports_neither_mmdet_nor_the_evaluation():
    run("import sys, scsa_mm; assert not {'mmdet', 'scsa_mm.evaluation'} & set(sys.modules)")
