"""Data that is not where the config looks for it."""

import pytest
from mmengine.config import Config

from scsa_mm.runtime.config import load_config
from scsa_mm.runtime.data import check_data
from scsa_mm.runtime.errors import UserError


def config(root, split='train', **dataset):
    dataset = dict(type='CocoDataset', data_root=str(root), **dataset)
    return Config({f'{split}_dataloader': dict(dataset=dataset)})


def test_what_is_there_passes(tmp_path):
    (tmp_path / 'a.json').touch()
    (tmp_path / 'images').mkdir()
    check_data(config(tmp_path, ann_file='a.json', data_prefix=dict(img='images/')), ('train', 'val', 'test'))


@pytest.mark.parametrize('kw', [dict(ann_file='b.json'), dict(ann_file='', data_prefix=dict(img='images/'))])
def test_the_missing_file_is_named(tmp_path, kw):
    with pytest.raises(UserError, match=f'train data: {tmp_path}/(b.json|images/) not found; correct train_dataloader'):
        check_data(config(tmp_path, **kw), ('train',))


def test_only_the_splits_that_are_used(tmp_path):
    check_data(config(tmp_path / 'nowhere', split='test', ann_file='a'), ('train', 'val'))
    with pytest.raises(UserError, match='test data'):
        check_data(config(tmp_path / 'nowhere', split='test', ann_file='a'), ('test',))


def test_the_way_to_get_it():
    with pytest.raises(UserError, match='data/coco/a.json not found; get train2017.*cocodataset.org.*ln -s'):
        check_data(config('data/coco', ann_file='a.json'), ('train',))


@pytest.mark.parametrize(
    'wrap', [lambda d: dict(dataset=d), lambda d: dict(datasets=[d]), lambda d: dict(dataset=dict(datasets=[d]))]
)
def test_inside_wrappers(tmp_path, wrap):
    inner = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='no.json')
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', **wrap(inner)))))
    with pytest.raises(UserError, match='no.json not found'):
        check_data(cfg, ('train',))


def test_remote_data_and_data_that_is_downloaded_are_left_alone():
    check_data(config('s3://bucket/coco', ann_file='a.json'), ('train',))
    check_data(config('nowhere', ann_file='a.json', backend_args=dict(backend='petrel')), ('train',))
    check_data(load_config('mmpretrain::resnet/resnet18_8xb16_cifar10.py'), ('train', 'test'))


def test_a_set_that_was_not_converted(tmp_path):
    (tmp_path / 'VisDrone2019').mkdir()
    way_out = f'tools/dataset_converters/visdrone.py {tmp_path}/VisDrone2019'
    with pytest.raises(UserError, match=f'coco/train.json not found; make it .*{way_out}'):
        check_data(config(tmp_path / 'VisDrone2019', ann_file='coco/train.json'), ('train',))


@pytest.mark.parametrize('key', ['ann_file', 'ann_dir'])
@pytest.mark.parametrize('wrap', [lambda m: m, lambda m: [dict(type='Other'), m]], ids=['one', 'list'])
def test_the_ground_truth_of_a_metric(tmp_path, key, wrap):
    cfg = config(tmp_path, split='val', ann_file='')
    cfg.val_evaluator = wrap({'type': 'Metric', key: str(tmp_path / 'truth')})
    with pytest.raises(UserError, match=f'val data: {tmp_path}/truth not found'):
        check_data(cfg, ('train', 'val'))
    (tmp_path / 'truth').mkdir()
    check_data(cfg, ('train', 'val'))
