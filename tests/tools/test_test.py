"""tools/test.py and tools/dist_test.sh as a user runs them."""

import json
import pickle

import numpy as np

from tests.conftest import TINY


def test_the_config_of_the_training_is_kept(trained, tool, tmp_path):
    before = (trained / 'tiny_mask_rcnn.py').read_text()
    low = ['--cfg-options', 'model.test_cfg.rcnn.score_thr=0.0']
    tool('test.py', TINY, trained / 'epoch_2.pth', '--work-dir', trained, '--out', tmp_path / 'p.pkl', *low)
    assert (trained / 'tiny_mask_rcnn.py').read_text() == before
    assert 'score_thr=0.0' in (trained / 'tiny_mask_rcnn.test.py').read_text()
    with open(tmp_path / 'p.pkl', 'rb') as f:
        masks = pickle.load(f)[0]['pred_instances']['masks']
    assert all(isinstance(m['counts'], bytes) for m in masks)


def predictions(path):
    """Per image id: boxes, scores, labels."""
    with open(path, 'rb') as f:
        samples = pickle.load(f)
    return {s['img_id']: [s['pred_instances'][k].numpy() for k in ('bboxes', 'scores', 'labels')] for s in samples}


def test_one_process_and_two_agree_to_the_last_digit(trained, tool, no_group_at_exit, tmp_path):
    checkpoint = trained / 'epoch_2.pth'
    low = ['--cfg-options', 'model.test_cfg.rcnn.score_thr=0.0']
    found = []
    for name, processes in (('test.py', []), ('dist_test.sh', [2])):
        for out in ('metrics.json', 'predictions.pkl'):
            path = tmp_path / f'{name}_{out}'
            tool(name, TINY, checkpoint, *processes, '--work-dir', tmp_path, '--out', path, *low)
        metrics = json.loads((tmp_path / f'{name}_metrics.json').read_text())
        found.append((metrics, predictions(tmp_path / f'{name}_predictions.pkl')))
    (metrics, images), (metrics_of_two, images_of_two) = found
    assert metrics['coco/bbox_mAP'] >= 0 and metrics == metrics_of_two
    assert len(images) == 4 and images.keys() == images_of_two.keys()
    assert sum(len(scores) for _, scores, _ in images.values()) > 0
    for key, arrays in images.items():
        for one, two in zip(arrays, images_of_two[key], strict=True):
            np.testing.assert_array_equal(one, two)


def test_show_dir_and_tta(trained, tool, tmp_path):
    tool('test.py', TINY, trained / 'epoch_2.pth', '--work-dir', tmp_path, '--show-dir', 'pictures')
    assert len(list(tmp_path.glob('*/pictures/*.png'))) == 4
    # mmdet merges boxes of augmented images, not masks.
    out = tmp_path / 'tta.json'
    box_only = ['test_evaluator.metric=bbox', 'model.roi_head.mask_head=None', 'model.roi_head.mask_roi_extractor=None']
    tool(
        'test.py',
        TINY,
        trained / 'epoch_2.pth',
        '--work-dir',
        tmp_path,
        '--tta',
        '--out',
        out,
        '--cfg-options',
        *box_only,
    )
    assert json.loads(out.read_text())['coco/bbox_mAP'] >= 0
