"""Checkpoints that are missing, cut off, unsafe, of another model, or hold nothing to resume."""

import pytest
import torch
from mmengine.config import Config
from torch import nn

from scsa_mm.runtime.checkpoints import (
    check_fits,
    check_nothing_overwritten,
    check_resumable,
    check_some_fit,
    find_resume,
    read_checkpoint,
)
from scsa_mm.runtime.errors import UserError


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=nn.Linear(50, 60).state_dict()), path)
    return path


def test_reads_a_whole_one(saved):
    assert read_checkpoint(str(saved))['state_dict']['weight'].numel() == 3000


@pytest.mark.parametrize('keep', [0, 1, 10, 500, -1])
def test_a_cut_off_file_is_said_to_be_one(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(UserError, match=r'epoch_1.pth is cut off or no checkpoint'):
        read_checkpoint(str(saved))


def test_text_is_no_checkpoint(tmp_path):
    (tmp_path / 'a.pth').write_text('version https://git-lfs.github.com/spec/v1\n')
    with pytest.raises(UserError, match='no checkpoint'):
        read_checkpoint(str(tmp_path / 'a.pth'))


def test_a_missing_one_is_named(tmp_path):
    with pytest.raises(UserError, match='nowhere.pth does not exist'):
        read_checkpoint(str(tmp_path / 'nowhere.pth'))


def test_one_that_could_run_code_is_not_loaded(tmp_path):
    torch.save(dict(model=nn.Linear(1, 1)), tmp_path / 'module.pth')
    with pytest.raises(UserError, match='could run code'):
        read_checkpoint(str(tmp_path / 'module.pth'))


def test_a_bare_tensor_is_no_checkpoint(tmp_path):
    torch.save(torch.ones(3), tmp_path / 'tensor.pth')
    with pytest.raises(UserError, match='holds a Tensor'):
        read_checkpoint(str(tmp_path / 'tensor.pth'))


def test_fits_also_as_bare_weights_and_from_ddp(saved):
    model = nn.Linear(50, 60)
    check_fits(model, read_checkpoint(str(saved)), 'x')
    check_fits(model, model.state_dict(), 'x')
    check_fits(model, {f'module.{k}': v for k, v in model.state_dict().items()}, 'x')


def test_another_model_is_refused_with_an_example(saved):
    checkpoint = read_checkpoint(str(saved))
    with pytest.raises(UserError, match=r'another model: size mismatch for weight: .*\[60, 50\].*\[60, 40\]'):
        check_fits(nn.Linear(40, 60), checkpoint, 'x')
    larger = nn.Linear(50, 60)
    larger.more = nn.Linear(2, 2)
    with pytest.raises(UserError, match='another model: more.weight is not in it'):
        check_fits(larger, checkpoint, 'x')


def test_a_start_needs_one_parameter_that_fits(saved):
    checkpoint = read_checkpoint(str(saved))
    check_some_fit(nn.Linear(40, 60), checkpoint, 'x')  # its bias does
    with pytest.raises(UserError, match='no parameter of this model is in x; it holds e.g. weight'):
        check_some_fit(nn.Conv2d(1, 2, 3), checkpoint, 'x')


def test_an_earlier_run_is_not_overwritten(saved, tmp_path):
    with pytest.raises(UserError, match='epoch_1.pth; --resume goes on with it'):
        check_nothing_overwritten(Config(dict(work_dir=str(tmp_path))))
    check_nothing_overwritten(Config(dict(work_dir=str(tmp_path / 'new'))))
    elsewhere = dict(checkpoint=dict(out_dir=str(tmp_path.parent)))
    with pytest.raises(UserError, match='earlier run'):
        check_nothing_overwritten(Config(dict(work_dir=f'new/{tmp_path.name}/', default_hooks=elsewhere)))


def test_nothing_to_resume(tmp_path):
    for folder in (tmp_path, tmp_path / 'nowhere'):
        with pytest.raises(UserError, match='holds no checkpoint to go on from'):
            find_resume(str(folder), 'auto')


def test_resumes_the_last_also_after_the_folder_was_moved(saved, tmp_path):
    (tmp_path / 'last_checkpoint').write_text('/moved/away/epoch_1.pth\n')
    assert find_resume(str(tmp_path), 'auto') == str(saved)
    (tmp_path / 'last_checkpoint').write_text('/moved/away/epoch_9.pth')
    with pytest.raises(UserError, match='epoch_9.pth, which does not exist; name one of epoch_1.pth'):
        find_resume(str(tmp_path), 'auto')


@pytest.mark.parametrize('noted', [None, ''])
def test_a_kill_in_the_first_save_has_a_way_out(saved, tmp_path, noted):
    if noted is not None:
        (tmp_path / 'last_checkpoint').write_text(noted)
    with pytest.raises(UserError, match='does not say which is the last; name one of epoch_1.pth with --resume'):
        find_resume(str(tmp_path), 'auto')


def test_one_that_cannot_be_downloaded():
    with pytest.raises(UserError, match='http://127.0.0.1:9/a.pth cannot be downloaded'):
        read_checkpoint('http://127.0.0.1:9/a.pth')


def test_a_model_may_convert_weights_of_an_older_form(saved):
    class Converts(nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *args):
            state_dict[prefix + 'weight'] = state_dict[prefix + 'weight'][:, :40]
            super()._load_from_state_dict(state_dict, prefix, *args)

    check_fits(Converts(40, 60), read_checkpoint(str(saved)), 'x')


def test_weights_alone_cannot_be_resumed(saved):
    with pytest.raises(UserError, match='has no meta, optimizer, message_hub: it holds weights only'):
        check_resumable(read_checkpoint(str(saved)), 'x.pth')
