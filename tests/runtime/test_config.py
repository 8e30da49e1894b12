"""Finding and reading configs."""

import argparse

import pytest

from scsa_mm.runtime.config import add_common_arguments, find_config, load_config, set_work_dir
from scsa_mm.runtime.errors import UserError


def test_a_path_or_a_name_of_an_installed_package():
    assert find_config('configs/mask_rcnn_r50_scsa_coco.py') == 'configs/mask_rcnn_r50_scsa_coco.py'
    for name in (
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
        'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    ):
        assert load_config(name).model.type


@pytest.mark.parametrize(
    'name, message',
    [
        ('configs/mask_rcnn_r50_sca_coco.py', 'did you mean configs/mask_rcnn_r50_scsa_coco.py'),
        ('nothing_like_it', 'config nothing_like_it does not exist$'),
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coc.py', 'did you mean mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'),
        ('mmnothing::a.py', "package 'mmnothing' is not installed"),
    ],
)
def test_one_that_does_not_exist(name, message):
    with pytest.raises(UserError, match=message):
        find_config(name)


@pytest.mark.parametrize(
    'text, message',
    [
        ('model = dict(', 'cannot be read'),
        ("_base_ = './nowhere.py'", 'cannot be read'),
        ('x = 1 / 0', 'cannot be read'),
        ("_base_ = 'mmdet::nowhere/nothing.py'", 'cannot be read'),
    ],
)
def test_one_that_is_broken(tmp_path, text, message):
    (tmp_path / 'broken.py').write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(str(tmp_path / 'broken.py'))


def test_options_are_merged_or_refused():
    cfg = load_config('configs/mask_rcnn_r50_scsa_coco.py', {'model.backbone.depth': 101})
    assert cfg.model.backbone.depth == 101
    with pytest.raises(UserError, match='--cfg-options does not fit'):
        load_config('configs/mask_rcnn_r50_scsa_coco.py', {'model.backbone.plugins.7.position': 'after_conv3'})


def test_options_without_a_value_end_in_a_usage_message(capsys):
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'model.depth'])
    assert "takes key=value, got 'model.depth'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'a=[1,2'])
    assert '--cfg-options: ' in capsys.readouterr().err


def test_work_dir_of_the_command_line_then_the_config_then_its_name():
    name = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    cfg = load_config(name)
    set_work_dir(cfg, name, None)
    assert cfg.work_dir == 'work_dirs/retinanet_r50_fpn_1x_coco'
    cfg.work_dir = 'mine'
    set_work_dir(cfg, name, None)
    assert cfg.work_dir == 'mine'
    set_work_dir(cfg, name, 'asked')
    assert cfg.work_dir == 'asked'
