"""The ConvNeXt of a CLIP as a backbone."""

import pytest
import torch
from safetensors.torch import save_file
from tiny_clip import CHANNELS, DIM, tiny_clip
from torch.nn import functional as F

from mmprompt.common.errors import UserError
from mmprompt.common.pretrained import load_pretrained
from mmprompt.foundation.clip import CLIPConvNeXt, load_clip
from mmprompt.foundation.clip.loading import build_clip, clip_architecture
from mmprompt.registry import MODELS

pytest.importorskip('open_clip')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(1)
    state = {
        name: torch.rand_like(x) - 0.3 for name, x in load_clip(tiny_clip()).state_dict().items()
    }
    path = tmp_path_factory.mktemp('clip') / 'clip.safetensors'
    save_file(state, path)
    return path


@pytest.fixture(scope='module')
def pair(weights):
    """The backbone, and the whole CLIP of the library."""
    config = dict(type='mmprompt.CLIPConvNeXt', model=tiny_clip(), pretrained=str(weights))
    backbone = MODELS.build(config)
    load_pretrained(backbone, must_be_whole=True)
    return backbone.eval(), load_clip(tiny_clip(), weights)


def test_maps(pair):
    backbone, clip = pair
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        maps = backbone(images)
        _, expected = clip.visual.trunk.forward_intermediates(images)  # timm's own
    assert [x.shape for x in maps] == [
        (2, c, 96 // s, 64 // s) for c, s in zip(CHANNELS, (4, 8, 16, 32))
    ]
    for found, wanted in zip(maps, expected):
        assert torch.equal(found, wanted)
    some = CLIPConvNeXt(tiny_clip(), out_indices=(1, 3)).eval()
    some.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        assert all(map(torch.equal, some(images), maps[1::2]))


def test_the_whole_image_is_embedded_as_by_the_library(pair):
    backbone, clip = pair
    images = torch.rand(3, 3, 64, 96)
    with torch.no_grad():
        found = backbone.embed(backbone(images)[-1].mean(dim=(2, 3)))
        expected = F.normalize(clip.encode_image(images), dim=-1)
    assert found.shape == (3, DIM)
    assert torch.allclose(found, expected, atol=1e-6)
    assert abs(float(backbone.logit_scale - clip.logit_scale.exp())) < 1e-6
    assert not backbone.logit_scale.requires_grad


def test_embeddings_in_half_precision_and_of_nothing(pair):
    backbone, _ = pair
    pooled = torch.rand(4, CHANNELS[-1])
    with torch.no_grad():
        plain = backbone.embed(pooled)
        with torch.autocast('cpu', torch.bfloat16):
            assert torch.equal(backbone.embed(pooled), plain)
        assert backbone.embed(pooled[:0]).shape == (0, DIM)


def test_only_the_maps_can_be_trained(pair):
    backbone = CLIPConvNeXt(tiny_clip())
    trained = [name for name, p in backbone.named_parameters() if p.requires_grad]
    loss = sum(x.sum() for x in backbone(torch.rand(1, 3, 64, 64)))
    loss.backward()
    got = [name for name, p in backbone.named_parameters() if p.grad is not None]
    assert got == trained and not any('head' in name or 'log_scale' in name for name in trained)


def test_a_large_scale_is_cut_off_as_in_training():
    backbone = CLIPConvNeXt(tiny_clip())
    backbone.log_scale.data.fill_(9)
    assert backbone.logit_scale == 100


def test_building_reads_no_file(tmp_path):
    backbone = CLIPConvNeXt(tiny_clip(), tmp_path / 'none.safetensors')
    with pytest.raises(UserError, match='none.safetensors: expected a file'):
        load_pretrained(backbone, must_be_whole=True)


def test_weights_fit_or_are_refused(weights, tmp_path):
    state = load_clip(tiny_clip(), weights).state_dict()
    cut = {name: x for name, x in state.items() if not name.startswith('transformer')}
    save_file(cut, tmp_path / 'cut.safetensors')
    with pytest.raises(UserError, match='cut.safetensors: expected the .* missing: transformer'):
        load_pretrained(CLIPConvNeXt(tiny_clip(), tmp_path / 'cut.safetensors'), True)


def test_what_it_is_built_of_is_checked():
    with pytest.raises(UserError, match='ConvNeXt of timm.*VisionTransformer'):
        CLIPConvNeXt('ViT-S-32-alt')
    with pytest.raises(ValueError, match='not both'):
        CLIPConvNeXt(tiny_clip(), 'a', init_cfg=dict(type='Pretrained', checkpoint='b'))
    for wrong in ((), (4,)):
        with pytest.raises(ValueError, match='out_indices'):
            CLIPConvNeXt(tiny_clip(), out_indices=wrong)


def test_sizes_of_the_paper():
    """open_clip's own table says 351.77 million for both encoders of convnext_large_d_320."""
    with torch.device('meta'):
        backbone = CLIPConvNeXt()
        whole = build_clip(clip_architecture('convnext_large_d_320'))
        maps = backbone(torch.empty(1, 3, 64, 96))
    assert round(sum(p.numel() for p in whole.parameters()) / 1e4) == 35177
    assert [x.shape[1] for x in maps] == [192, 384, 768, 1536]
    own = {k: v.shape for k, v in whole.state_dict().items() if k.startswith('visual.')}
    found = {k: v.shape for k, v in backbone.state_dict().items() if k != 'log_scale'}
    assert found == own
