"""Backbone and texts are of one CLIP, weights included."""

import pytest
from tiny_clip import tiny_clip
from torch import nn

from mmprompt.common.errors import UserError
from mmprompt.methods.samcp.clip_pair import check_clip_pair


class Images(nn.Module):
    logit_scale = 1.0

    def __init__(self, out_indices=(0, 1, 2, 3)):
        super().__init__()
        self.out_indices = out_indices

    def embed(self, pooled):
        return pooled


def check(backbone, text, out_indices=(0, 1, 2, 3)):
    check_clip_pair(Images(out_indices), backbone, text)


TAG = dict(model='RN50', pretrained='openai'), dict(clip='RN50', pretrained='openai')


def test_one_clip_is_taken(tmp_path):
    check(*TAG)
    check(dict(model=tiny_clip()), dict(clip=tiny_clip()))  # both at random
    check(dict(model='RN50', pretrained='openai'), 'rows.npy')
    check(dict(model='RN50', init_cfg=dict(checkpoint='x.pth')), TAG[1])


def test_two_paths_of_one_file_are_one_clip_and_two_files_are_two(tmp_path):
    one, same, other = (tmp_path / name for name in ('a.bin', 'b.bin', 'c.bin'))
    one.touch()
    other.touch()
    same.symlink_to(one)
    check(dict(model='RN50', pretrained=str(one)), dict(clip='RN50', pretrained=same))
    with pytest.raises(UserError, match='one CLIP'):
        check(dict(model='RN50', pretrained=str(one)), dict(clip='RN50', pretrained=other))


@pytest.mark.parametrize('weights', ['FILE.safetensors', 'yfcc15m', None])
def test_texts_do_not_stay_with_other_weights_of_the_same_model(weights):
    with pytest.raises(UserError, match=r'one CLIP, found model.head.text.pretrained=\'openai\''):
        check({**TAG[0], 'pretrained': weights}, TAG[1])
    with pytest.raises(UserError, match='text.clip'):
        check({**TAG[0], 'model': 'RN101'}, TAG[1])


def test_the_last_map_is_asked_for():
    check(*TAG, out_indices=(1, 3))
    with pytest.raises(UserError, match=r'out_indices, found \(0, 1, 2\)'):
        check(*TAG, out_indices=(0, 1, 2))


def test_other_backbones_are_refused():
    with pytest.raises(UserError, match='found Linear'):
        check_clip_pair(nn.Linear(1, 1), *TAG)
