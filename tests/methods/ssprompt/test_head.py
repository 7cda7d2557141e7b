"""The head: what it answers, where gradients go, and stock MMSegmentation around it."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from toy import CLASSES, DIM, PROMPTS, QUERIES, toy_batch, toy_seem, write_base

from mmprompt.common.errors import UserError
from mmprompt.common.mask_merge import semantic_scores
from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.class_names import make_text_bank
from mmprompt.methods.ssprompt.head import SEEMPromptHead

FROZEN = dict(type='DefaultPrompt', num_prompts=PROMPTS)
SPA, SEM = dict(type='SpaPrompt', num_prompts=PROMPTS), dict(type='SemPrompt')


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def semantic():
    torch.manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(len(CLASSES) + 1, DIM), dim=-1)


def make(semantic=None, spatial=SPA, text=SEM, **head) -> SEEMPromptHead:
    """A head with the same random frozen weights at each call."""
    torch.manual_seed(0)
    seem = toy_seem(object_tokens=head.pop('object_tokens', False))
    config = {**dict(spatial_prompt=spatial, semantic_prompt=text), **head}
    head = SEEMPromptHead(seem['pixel_decoder'], seem['decoder'], len(CLASSES), **config)
    if semantic is not None:
        head.fill(semantic)
    return head


def maps(batch=2, height=32, width=64):
    torch.manual_seed(2)
    return [
        torch.randn(batch, 8 * 2**i, height // (4 * 2**i), width // (4 * 2**i)) for i in range(4)
    ]


@pytest.mark.parametrize('source', ['query', 'query_pos', 'both'])
@pytest.mark.parametrize('weight', ['sigmoid', 'clamp', 'fixed'])
@pytest.mark.parametrize('decay_to', ['default', 'zero'])
def test_step_zero_is_the_zero_shot_model_bit_for_bit(semantic, source, weight, decay_to):
    """Against the plain decoder, which knows nothing of prompts."""
    kind = dict(weight=weight, decay_to=decay_to)
    head = make(semantic, dict(SPA, source=source, **kind), dict(SEM, **kind))
    with torch.no_grad():
        plain = head.decoder(head.pixel_decoder(maps()), semantic)
        prompted = head.decode(maps())
    assert torch.equal(prompted.pred_masks, plain.pred_masks)
    assert torch.equal(prompted.pred_logits, plain.pred_logits)


def test_grid_has_a_zero_shot_row_of_its_own(semantic):
    learned = make(semantic, dict(SPA, source='grid'), object_tokens=True)
    zero_shot = make(semantic, dict(FROZEN, source='grid'), object_tokens=True)
    plain = make(semantic, FROZEN)
    with torch.no_grad():
        answers = [head(maps()) for head in (learned, zero_shot, plain)]
    assert torch.equal(answers[0], answers[1])
    assert not torch.allclose(answers[1], answers[2])


@pytest.mark.parametrize('source', ['query', 'query_pos', 'both', 'grid'])
def test_learned_rows_and_only_those_change_the_answer(semantic, source):
    head = make(semantic, dict(SPA, source=source), object_tokens=source == 'grid')
    before = head(maps()).detach()
    with torch.no_grad():
        head.spatial_prompt.offset.add_(1)
    assert not torch.allclose(head(maps()), before)


def test_last_query_and_no_object_row_stay(semantic):
    head = make(semantic)
    seen = {}
    head.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs, semantic=args[1]), with_kwargs=True
    )
    with torch.no_grad():
        for prompt in (head.spatial_prompt, head.semantic_prompt):
            prompt.offset.add_(1)
        head.decode(maps())
    assert len(seen['spatial']['content']) == QUERIES - 1
    assert torch.equal(seen['semantic'][-1], semantic[-1])
    assert not torch.isclose(seen['semantic'][:-1], semantic[:-1]).any()


@pytest.mark.parametrize('spatial, graph', [(SPA, True), (FROZEN, False)], ids=['both', 'sem'])
def test_semantic_prompt_alone_builds_no_graph_in_the_layers(semantic, spatial, graph):
    head = make(semantic, spatial)
    outputs = []
    for layer in (head.pixel_decoder, *head.decoder.layers):
        layer.register_forward_hook(lambda module, args, out: outputs.append(out))
    output = head.decode(maps())
    assert not outputs[0].mask_features.requires_grad
    assert all(out.requires_grad == graph for out in outputs[1:])
    assert output.pred_logits.requires_grad
    assert output.pred_masks.requires_grad == graph


def test_gradient_without_the_layers_is_the_same_as_with(semantic):
    label = toy_batch()['data_samples']
    gradients = []
    for spatial in (SPA, FROZEN):
        head = make(semantic, spatial)
        head.loss(maps(), label)['loss_sem'].backward()
        gradients.append(head.semantic_prompt.offset.grad)
    torch.testing.assert_close(*gradients)


def test_no_graph_at_all_without_learned_prompts(semantic):
    head = make(semantic, FROZEN, dict(type='DefaultPrompt'))
    assert not head.loss(maps(), toy_batch()['data_samples'])['loss_sem'].requires_grad


@pytest.mark.parametrize('mode', ['scores', 'logits'])
def test_resizes(semantic, mode):
    head = make(semantic, test_resize=mode)
    meta = [dict(img_shape=(32, 64), ori_shape=(32, 64))] * 2
    with torch.no_grad():
        answer = head.predict(maps(), meta)
        output = head.decode(maps())
    resize = lambda x: torch.nn.functional.interpolate(x, size=(32, 64), mode='bilinear')  # noqa: E731
    scores = semantic_scores(output.pred_logits, output.pred_masks)
    by_hand = dict(
        scores=resize(scores),
        logits=semantic_scores(output.pred_logits, resize(output.pred_masks)),
    )
    torch.testing.assert_close(answer, by_hand[mode])


def test_odd_sizes_are_cropped_not_stretched(semantic):
    """A padded input and its crop agree on the pixels they share."""
    head = make(semantic)
    with torch.no_grad():
        whole = head.predict(maps(), [dict(img_shape=(32, 64))])
        part = head.predict(maps(), [dict(img_shape=torch.Size([29, 61]))])
        padded = head.predict(maps(), [dict(img_shape=(29, 61), pad_shape=(32, 64))])
    assert torch.equal(part, whole[..., :29, :61])
    assert torch.equal(padded, whole)
    with pytest.raises(ValueError, match='stride 4'):
        head.predict(maps(), [dict(img_shape=(33, 64))])


def test_wrong_label_names_file_and_range(semantic):
    samples = toy_batch()['data_samples']
    samples[1].gt_sem_seg.data[0, 20, 3] = 77
    with pytest.raises(UserError, match=r'toy_labelTrainIds.png.* 77 .*0 to 18 or 255'):
        make(semantic).loss(maps(), samples)


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(spatial=dict(SPA, num_prompts=QUERIES)), 'num_prompts is 10'),
        (dict(text=dict(SEM, num_prompts=3)), 'num_classes is 19'),
        (dict(spatial=dict(SPA, source='grid')), 'object_tokens=True'),
        (dict(train_resize='bicubic'), "'bicubic'"),
    ],
)
def test_impossible_configs_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        make(**change)


def test_bank_of_other_classes_is_refused(semantic):
    with pytest.raises(UserError, match='holds 4 classes.*num_classes is 19'):
        make().fill(semantic[:5])


def stock(backbone: dict, channels, bank) -> torch.nn.Module:
    """MMSegmentation's own EncoderDecoder around the head."""
    seem = toy_seem(in_channels=channels)
    return MODELS.build(
        dict(
            type='mmseg.EncoderDecoder',
            backbone=backbone,
            decode_head=dict(
                type='SEEMPromptHead',
                pixel_decoder=seem['pixel_decoder'],
                decoder=seem['decoder'],
                num_classes=len(CLASSES),
                spatial_prompt=SPA,
                semantic_prompt=SEM,
                text_bank=bank,
            ),
            data_preprocessor=dict(type='mmseg.SegDataPreProcessor', size_divisor=32),
            train_cfg=dict(),
            test_cfg=ConfigDict(mode='whole'),
        )
    )


RESNETS = {
    18: (dict(type='mmseg.ResNetV1c', depth=18, base_channels=8), (8, 16, 32, 64)),
    50: (dict(type='mmseg.ResNet', depth=50, base_channels=8), (32, 64, 128, 256)),
}


@pytest.mark.parametrize('depth', RESNETS)
@pytest.mark.parametrize('scope', ['mmseg', 'mmprompt'])
def test_stock_encoder_decoder_over_resnet(depth, scope, tmp_path):
    backbone, channels = RESNETS[depth]
    base = write_base(tmp_path / 'base.safetensors')
    bank = tmp_path / 'classes.safetensors'
    with DefaultScope.overwrite_default_scope(scope):
        model = stock(dict(backbone, norm_cfg=dict(type='BN')), channels, str(bank))
    make_text_bank(CLASSES, str(base), ('{}',)).save(bank)  # after building: nothing was read
    frozen = {k: v.clone() for k, v in model.decode_head.decoder.state_dict().items()}
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0))
    model.train()
    for _ in range(2):
        losses = model.train_step(toy_batch(), wrapper)
    assert losses['decode.loss_sem'].isfinite() and 0 <= losses['decode.acc_seg'] <= 100
    assert model.decode_head.spatial_prompt.weight.theta.any()
    after = model.decode_head.decoder.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())
    result = model.eval().test_step(toy_batch())[0]
    assert result.pred_sem_seg.data.shape == (1, 32, 64)


def test_stock_slide_mode(tmp_path):
    backbone, channels = RESNETS[18]
    base = write_base(tmp_path / 'base.safetensors')
    bank = dict(names=CLASSES, base=str(base), templates=['{}'])
    model = stock(dict(backbone, norm_cfg=dict(type='BN')), channels, bank).eval()
    model.test_cfg.update(mode='slide', crop_size=(32, 32), stride=(16, 16))
    with torch.no_grad():
        result = model.test_step(toy_batch())[0]
    assert result.seg_logits.data.shape == (len(CLASSES), 32, 64)


def test_head_without_embeddings_says_what_to_give():
    with pytest.raises(UserError, match='text_bank'):
        make()(maps())


def test_other_frozen_weights_bring_other_defaults(tmp_path):
    base = write_base(tmp_path / 'base.safetensors')
    head = make(text_bank=dict(names=CLASSES, base=str(base), templates=['{}']))
    head(maps())
    state = head.state_dict()
    state['decoder.query_feat'] = state['decoder.query_feat'] + 1
    head.load_state_dict(state)
    head(maps())
    assert torch.equal(head.spatial_prompt.default, state['decoder.query_feat'][:PROMPTS])


def test_answers_as_the_whole_model_does(semantic):
    """The parts of a SEEM inside the head give what the SEEM itself gives."""
    torch.manual_seed(0)
    seem = SEEM(**toy_seem()).eval()
    head = make(semantic, FROZEN, dict(type='DefaultPrompt'))
    head.pixel_decoder.load_state_dict(seem.pixel_decoder.state_dict())
    head.decoder.load_state_dict(seem.decoder.state_dict())
    head.fill(semantic)
    image = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        whole = seem(image, semantic)
        output = head.decode(seem.backbone(image))
    assert torch.equal(output.pred_logits, whole.pred_logits)
    assert torch.equal(output.pred_masks, whole.pred_masks)
