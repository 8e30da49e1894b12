"""The metric that a config names gives the toolkit's numbers, in one process and in two."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement, InstanceData

from scsa_mm.datasets.classes import VISDRONE as CLASSES
from scsa_mm.evaluation import VisDroneMetric, evaluate, read_detections
from tests.evaluation.visdrone_cases import FOLDER, NUMBERS, SIZES, golden, samples

ANN_DIR = str(FOLDER / 'annotations')
EXPECTED = {f'visdrone/{name}': value for name, value in NUMBERS.items()}


def as_elements(made):
    """The samples as a model returns them."""
    elements = []
    for sample in made:
        metainfo = {k: v for k, v in sample.items() if k != 'pred_instances'}
        element = BaseDataElement(metainfo=metainfo)
        element.pred_instances = InstanceData(**sample['pred_instances'])
        elements.append(element)
    return elements


def test_through_an_evaluator_in_any_order_of_images():
    evaluator = Evaluator([dict(type='scsa_mm.VisDroneMetric', ann_dir=ANN_DIR)])
    evaluator.dataset_meta = dict(classes=CLASSES)
    elements = as_elements(samples())[::-1]
    evaluator.process(elements[:2])
    evaluator.process(elements[2:])
    values = evaluator.evaluate(len(elements))
    assert values == pytest.approx(EXPECTED, abs=1e-9)
    assert list(values) == [f'visdrone/{n}' for n in ('AP', 'AP50', 'AP75', 'AR1', 'AR10', 'AR100', 'AR500')]


def test_equal_scores_are_in_the_order_of_the_names():
    annotations, detections, sizes = golden()
    for rows in detections:
        rows[:, 4] = rows[:, 4].round(1)
    values = []
    for order in (1, -1):
        metric = VisDroneMetric(ANN_DIR)
        metric.process({}, samples(dict(zip(SIZES, detections, strict=True)))[::order])
        values.append(metric.evaluate(len(SIZES))['visdrone/AP50'])
    assert values == [evaluate(annotations, detections, sizes)['AP50']] * 2
    assert values[0] != evaluate(annotations[::-1], detections[::-1], sizes[::-1])['AP50']


TWO_PROCESSES = """
import json, sys
import torch.distributed as dist
from scsa_mm.evaluation import VisDroneMetric
sys.path.insert(0, 'tests/evaluation')  # a package `tests` among the installed ones would be found first
from visdrone_cases import samples
dist.init_process_group('gloo')
rank = dist.get_rank()
metric = VisDroneMetric(sys.argv[1])
# As DefaultSampler deals five images out: the first comes again at the end of the second process.
made = samples()
metric.process({}, (made + made[:1])[rank::2])
values = metric.evaluate(len(made))
if rank == 1:
    print(json.dumps(values))
dist.destroy_process_group()
"""


def test_two_processes():
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node=2', '--standalone']
    script = ['--no-python', sys.executable, '-c', TWO_PROCESSES, ANN_DIR]
    done = subprocess.run([*command, *script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(EXPECTED, abs=1e-9)


def test_detections_are_taken_and_written_with_the_best_first(tmp_path):
    rng = np.random.default_rng(0)
    annotations, detections, sizes = golden()
    mixed = {name: rng.permutation(rows) for name, rows in zip(SIZES, detections, strict=True)}
    metric = VisDroneMetric(ANN_DIR, outfile_prefix=str(tmp_path / 'new' / 'folder'))
    metric.process({}, samples(mixed))
    values = metric.evaluate(len(SIZES))
    written = [read_detections(tmp_path / 'new' / 'folder' / f'{name}.txt') for name in SIZES]
    for rows, expected in zip(written, detections, strict=True):
        assert (np.diff(rows[:, 4]) <= 0).all()
        assert np.sort(rows, axis=0) == pytest.approx(np.sort(expected, axis=0))
    by_score = [d[np.argsort(-d[:, 4], kind='stable')] for d in mixed.values()]
    for expected in (evaluate(annotations, by_score, sizes), evaluate(annotations, written, sizes)):
        assert values == pytest.approx({f'visdrone/{k}': v for k, v in expected.items()}, abs=1e-9)


def test_images_without_detections_and_float32(tmp_path):
    made = samples()
    for sample in made:
        sample['pred_instances'] = dict(
            bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.long)
        )
    metric = VisDroneMetric(ANN_DIR, outfile_prefix=str(tmp_path), prefix='mine')
    metric.process({}, made)
    assert metric.evaluate(len(made)) == {f'mine/{name}': 0.0 for name in NUMBERS}
    assert {path.stem: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(SIZES, '')


def test_without_ground_truth_the_detections_are_written(tmp_path):
    metric = VisDroneMetric(outfile_prefix=str(tmp_path))
    metric.process({}, samples())
    assert metric.evaluate(len(SIZES)) == {}
    assert {path.stem for path in tmp_path.iterdir()} == set(SIZES)


def test_a_part_of_the_images_is_said(monkeypatch):
    said = []
    monkeypatch.setattr('logging.Logger.warning', lambda self, text, *a, **k: said.append(str(text)))
    metric = VisDroneMetric(ANN_DIR)
    metric.process({}, samples()[:3])
    values = metric.evaluate(3)
    assert values['visdrone/AP'] == pytest.approx(evaluate(*(part[:3] for part in golden()))['AP'])
    assert any('3 images were tested of the 5' in text for text in said)


def test_what_is_given_wrongly_is_said(tmp_path):
    with pytest.raises(ValueError, match='needs ann_dir, to evaluate, or outfile_prefix'):
        VisDroneMetric()
    with pytest.raises(ValueError, match=f'there are none in {tmp_path}'):
        VisDroneMetric(str(tmp_path))
    (tmp_path / 'a.txt').write_text('1,2,3')
    with pytest.raises(ValueError, match='a.txt, line 1: expected 8'):
        VisDroneMetric(str(tmp_path))
    with pytest.raises(ValueError, match=r"takes label 0..9 .* but classes = \('car', 'bus'\)"):
        VisDroneMetric(ANN_DIR).dataset_meta = dict(classes=['car', 'bus'])


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda s: s.pop('img_path'), "put 'img_path' into the meta_keys of PackDetInputs"),
        (lambda s: s.update(img_path='images/unknown.jpg'), 'there is no unknown.txt in .*annotations'),
        (lambda s: s['pred_instances']['labels'].fill_(79), r'within 79..79; .* set num_classes=10'),
    ],
)
def test_an_image_that_cannot_be_evaluated_is_said(change, message):
    made = samples()
    change(made[1])
    with pytest.raises(ValueError, match=message):
        VisDroneMetric(ANN_DIR).process({}, made)


def test_an_image_tested_twice_is_said():
    metric = VisDroneMetric(ANN_DIR)
    metric.process({}, samples() + samples()[:1])
    with pytest.raises(ValueError, match=f'two of the tested images are named {next(iter(SIZES))}'):
        metric.evaluate(6)
