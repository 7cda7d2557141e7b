"""A prompted segmentor outside of PyTorch: torch.export, and ONNX in onnxruntime."""

import pytest
import torch
from mmengine.config import Config
from mmseg.structures import SegDataSample
from prompt_files import save_files
from toy_spm import PSP, PUP, toy_spm, train_a_little

from mmprompt.apis.export import (
    Deployed,
    export,
    exports_programs,
    largest_difference,
    main,
    program,
)
from mmprompt.common.errors import UserError
from mmprompt.registry import MODELS

CLASSES = ('road', 'sky', 'car')
VIT = dict(
    type='mmseg.VisionTransformer',
    img_size=(64, 64),
    patch_size=16,
    embed_dims=16,
    num_heads=2,
    num_layers=3,
    out_indices=(2,),
)
#: name -> config, whether sizes are free.
MODELS_OF = {
    'resnet, pup': (toy_spm(CLASSES, PUP), True),
    'resnet, psp': (toy_spm(CLASSES, PSP), False),
    'vit, pup': (toy_spm(CLASSES, PUP, VIT, prompt_at=['layers.0', 'layers.2', 'out']), False),
}


def trained(config):
    torch.manual_seed(0)
    return train_a_little(MODELS.build(config)).requires_grad_(False)


def pictures(number, height, width):
    generator = torch.Generator().manual_seed(number)
    return torch.rand(number, 3, height, width, generator=generator) * 255


@pytest.fixture
def onnx():
    for package in ('onnx', 'onnxruntime', *(['onnxscript'] if exports_programs() else [])):
        pytest.importorskip(package)


@pytest.mark.parametrize('config, free', MODELS_OF.values(), ids=MODELS_OF)
def test_onnx_gives_the_same_logits(config, free, tmp_path, onnx):
    if config.decode_head.type == 'mmseg.PSPHead' and not exports_programs():
        pytest.skip('tracing knows no pooling to cells')
    model = Deployed(trained(config)).eval()
    path = export(model, tmp_path / 'model.onnx', (64, 64), dynamic=free)
    assert [p.name for p in tmp_path.iterdir()] == ['model.onnx']
    sizes = [(1, 64, 64), (3, 96, 128)] if free else [(1, 64, 64)]
    for size in sizes:
        assert largest_difference(model, path, pictures(*size)) < 1e-4


@pytest.mark.skipif(not exports_programs(), reason='torch.export of this PyTorch needs dynamo')
def test_a_program_holds_the_prompts(tmp_path):
    """Of torch.export: the same logits, at free sizes too, and not those without prompts."""
    model = Deployed(trained(MODELS_OF['resnet, pup'][0])).eval()
    made = program(model, pictures(2, 64, 64), dynamic=True).module()
    for size in ((2, 64, 64), (3, 96, 128)):
        torch.testing.assert_close(made(pictures(*size)), model(pictures(*size)))
    bare = model(pictures(2, 64, 64))
    for matcher in model.segmentor.backbone.matchers:
        torch.nn.init.zeros_(matcher.prompt.project.weight)
        torch.nn.init.zeros_(matcher.prompt.project.bias)
    assert (model(pictures(2, 64, 64)) - bare).abs().max() > 1e-3


def test_pictures_are_rgb_of_0_to_255():
    """As the segmentor sees what OpenCV reads, with and without its turn of the channels."""
    for turned in (True, False):
        config = toy_spm(CLASSES)
        config.data_preprocessor.bgr_to_rgb = turned
        segmentor = trained(config)
        picture = pictures(1, 64, 64).round()[0]
        loaded = dict(inputs=[picture.flip(0).byte()], data_samples=[SegDataSample()])
        data = segmentor.data_preprocessor(loaded)
        expected = segmentor(data['inputs'], mode='tensor')
        expected = torch.nn.functional.interpolate(expected, (64, 64), mode='bilinear')
        torch.testing.assert_close(Deployed(segmentor)(picture[None]), expected)


def test_one_command(tmp_path, capsys, onnx):
    config = toy_spm(CLASSES)
    model = trained(config)
    weights = tmp_path / 'backbone.pth'
    torch.save(model.backbone.backbone_state_dict(), weights)
    config.backbone.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    path = tmp_path / 'config.py'
    Config(dict(default_scope='mmprompt', model=config), format_python_code=False).dump(path)
    out = tmp_path / 'there/model.onnx'
    given = [path, save_files(model, tmp_path), '--out', out, '--size', 64, 96]
    assert main([str(a) for a in given]) == 0
    assert 'largest difference to the model' in capsys.readouterr().out
    assert largest_difference(Deployed(model).eval(), out, pictures(1, 64, 96)) < 1e-4


def test_what_cannot_be_written_is_said(tmp_path):
    model = torch.nn.Identity()
    with pytest.raises(UserError, match='ends in .onnx or .pt2'):
        export(model, tmp_path / 'model.pt')
    with pytest.raises(UserError, match='multiples of 32'):
        export(model, tmp_path / 'model.onnx', (64, 65), dynamic=True)
