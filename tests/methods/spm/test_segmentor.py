"""The segmentor: Eq. 5, numbers of parameters, and the files of what was learned."""

import copy
import io
import pickle

import pytest
import torch
from drop_in import build as build_in
from drop_in import same, state_of
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT
from mmengine.structures import BaseDataElement, PixelData
from mmseg.structures import SegDataSample
from prompt_files import save_files
from prompted import (
    PLACES,
    RESNET,
    SIZE,
    head_parameters,
    matcher_parameters,
    open_up,
    prompted_segmentor,
)
from torch import Tensor
from torch.nn import functional as F
from toy import CLASSES, toy_batch

from mmprompt.common.checkpoint import fingerprint
from mmprompt.common.errors import UserError
from mmprompt.common.prompt_file import PromptFile
from mmprompt.methods.spm import SPMSegmentor


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make(folder, tuning='spm', **model) -> SPMSegmentor:
    return build_in(prompted_segmentor(folder, tuning, **model), 'mmprompt')


def learned(folder, tuning='spm', **model) -> SPMSegmentor:
    """Some random values in everything that is trained, and statistics of some pictures."""
    made = make(folder, tuning, **model)
    made.load_base()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
        made.train()
        made(**made.data_preprocessor(toy_batch(), True), mode='loss')
    return made.eval()


def scores(model) -> Tensor:
    with torch.no_grad():
        return torch.stack([r.seg_logits.data for r in model.eval().test_step(toy_batch())])


# ------------------------------------------------------------------ Eq. 5
def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """A mean over all pixels, ignored ones included, as MMSegmentation takes it."""
    logits = F.interpolate(logits, labels.shape[-2:], mode='bilinear', align_corners=False)
    return F.cross_entropy(logits, labels, ignore_index=255, reduction='sum') / labels.numel()


def both_losses(model) -> tuple[dict, Tensor, list[Tensor], Tensor]:
    """Losses of the model; by hand that of the head, those of the maps, and the labels."""
    data = model.data_preprocessor(toy_batch(), True)
    losses = model(**data, mode='loss')
    with model.backbone.recording() as interim:
        features = model.extract_feat(data['inputs'])
    labels = torch.cat([sample.gt_sem_seg.data for sample in data['data_samples']])
    maps = [cross_entropy(logits, labels) for logits in interim]
    return losses, cross_entropy(model.decode_head(features), labels), maps, labels


@pytest.mark.parametrize('weights', [0.4, 1, [0.1, 0.2, 0, 0.3, 1]], ids=str)
def test_loss(weights, tmp_path):
    model = learned(tmp_path, interim_weights=weights)
    losses, head, maps, labels = both_losses(model)
    assert (labels == 255).any()
    weights = weights if isinstance(weights, list) else [weights] * 5
    expected = {f'interim_{i}.loss_ce': w * maps[i] for i, w in enumerate(weights) if w}
    assert {k for k in losses if 'interim' in k} == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, head + sum(w * m for w, m in zip(weights, maps)))


@pytest.mark.parametrize('weights', [0, [0] * 5], ids=str)
def test_without_semantic_guidance(weights, tmp_path):
    """The ablation of Table 7; every parameter still learns, by the prompts."""
    model = learned(tmp_path, interim_weights=weights).train()
    losses = model(**model.data_preprocessor(toy_batch(), True), mode='loss')
    assert set(losses) == {'decode.loss_ce', 'decode.acc_seg'}
    losses['decode.loss_ce'].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize('tuning', ['head', 'full'])
def test_without_prompts_there_are_no_interim_losses(tuning, tmp_path):
    model = make(tmp_path, tuning, interim_weights=[1, 1, 1, 1, 1])
    losses = model(**model.data_preprocessor(toy_batch(), True), mode='loss')
    assert set(losses) == {'decode.loss_ce', 'decode.acc_seg'}


def test_other_losses_and_labels_that_do_not_count(tmp_path):
    config = prompted_segmentor(tmp_path, interim_loss=dict(type='mmseg.DiceLoss'))
    assert 'interim_0.loss_dice' in both_losses(build_in(config, 'mmprompt').eval())[0]
    model = learned(tmp_path)
    data = model.data_preprocessor(toy_batch(), True)
    before = model(**data, mode='loss')['interim_2.loss_ce']
    for sample in data['data_samples']:
        labels = sample.gt_sem_seg.data
        labels[labels == 255] = 77
    config.update(interim_loss=dict(type='mmseg.CrossEntropyLoss'))
    config.decode_head.ignore_index = 77
    other = build_in(config, 'mmprompt').eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(**data, mode='loss')['interim_2.loss_ce'], before)


def test_in_bfloat16(tmp_path):
    model = learned(tmp_path)
    data = model.data_preprocessor(toy_batch(), True)
    exact = model(**data, mode='loss')
    with torch.autocast('cpu', torch.bfloat16):
        rough = model(**data, mode='loss')
    for name in exact:
        torch.testing.assert_close(rough[name].float(), exact[name], rtol=0.1, atol=0.1)
    sum(v for k, v in rough.items() if 'loss' in k).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


# ------------------------------------------------------------------ numbers
def test_parameters_are_counted_by_group(tmp_path, capsys):
    prompt = sum(matcher_parameters(19).values())
    head = sum(head_parameters(19).values())
    numbers = dict(
        spm=dict(backbone=0, prompt=prompt, head=head), head=dict(backbone=0, prompt=0, head=head)
    )
    for tuning in ('spm', 'head', 'full'):
        paper = dict(spm=dict(backbone=0, prompt=3.11, head=23.15))
        model = make(tmp_path, tuning, expected_parameters=numbers, paper_parameters=paper)
        groups = model.parameter_groups()
        assert groups == numbers.get(tuning, groups)
        text = model.describe_parameters()
        assert f'trained parameters of {tuning}:' in text and f'({head:,}' in text
        assert ('paper 3.11 M' in text) is (tuning == 'spm')
    backbone = sum(p.numel() for p in build_in(RESNET).parameters())
    assert groups == dict(backbone=backbone, prompt=0, head=head)
    wrong = dict(spm=dict(numbers['spm'], head=head + 1))
    with pytest.raises(ValueError, match=rf"expected_parameters\['spm'\].*{head + 1}.*{head}}}"):
        make(tmp_path, expected_parameters=wrong)
    make(tmp_path, 'head', expected_parameters=wrong)


@pytest.mark.parametrize(
    'change, message',
    [
        (
            dict(backbone=RESNET),
            r'SPMSegmentor\.backbone: expected an SPMBackbone, found ResNetV1c',
        ),
        (dict(classes=CLASSES[:3]), r'SPMSegmentor\.classes: expected 19 names.*found 3'),
        (dict(interim_weights=[1, 2]), r'interim_weights: .* 5 places .*, found 2'),
    ],
)
def test_arguments_that_do_not_fit(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build_in({**prompted_segmentor(tmp_path), **change}, 'mmprompt')


def test_numbers_of_classes_that_differ(tmp_path):
    config = prompted_segmentor(tmp_path)
    config.decode_head.num_classes = 3
    with pytest.raises(ValueError, match='as many classes .* found 19 and 3'):
        build_in(config, 'mmprompt')


def test_classes_are_those_of_the_data(tmp_path):
    model = make(tmp_path, classes=CLASSES)
    model.check_dataset(dict(classes=CLASSES))
    model.check_dataset({})
    with pytest.raises(UserError, match=r'num_classes .* 19 classes'):
        model.check_dataset(dict(classes=CLASSES[::-1]))
    config = prompted_segmentor(tmp_path)
    del config.classes
    model = build_in(config, 'mmprompt')
    with pytest.raises(UserError, match='expected those of the dataset, 2 classes'):
        model.check_dataset(dict(classes=['a', 'b']))
    model.check_dataset(dict(classes=CLASSES))
    assert model.classes == CLASSES


# ------------------------------------------------------------------ files
@pytest.mark.parametrize('tuning', ['spm', 'head'])
def test_files_give_the_same_predictions(tuning, tmp_path):
    model = learned(tmp_path, tuning)
    path = save_files(model, tmp_path)
    names = {path.name for path in tmp_path.glob('*.safetensors')}
    assert names == {'head.safetensors'} | ({'prompt.safetensors'} if tuning == 'spm' else set())
    other = make(tmp_path, tuning)
    before = scores(other)
    other.load_prompt(path)
    assert torch.equal(scores(other), scores(model)) and not torch.equal(before, scores(model))
    assert same(state_of(other), state_of(model))
    file = PromptFile.load(tmp_path / 'head.safetensors', kinds=('head',))
    assert tuple(file.classes) == CLASSES
    weights = torch.load(tmp_path / 'resnet.pth')
    assert file.base_fingerprint == model.base_fingerprint == fingerprint(weights)
    frozen = set(model.backbone.backbone.state_dict())
    assert not any(name in frozen or 'backbone' in name for name in file.tensors)


def test_a_head_brings_its_prompt(tmp_path):
    model = learned(tmp_path)
    save_files(model, tmp_path)
    other = make(tmp_path)
    other.load_prompt(tmp_path / 'head.safetensors')
    assert torch.equal(scores(other), scores(model))


def test_what_was_trained_whole_has_no_files(tmp_path):
    for tuning in ('full', 'scratch'):
        model = make(tmp_path, tuning)
        assert model.export_files() == {} and model.base_fingerprint is None


def test_files_that_do_not_belong_together(tmp_path):
    save_files(learned(tmp_path), tmp_path)
    prompt, head = tmp_path / 'prompt.safetensors', tmp_path / 'head.safetensors'
    narrow = prompted_segmentor(tmp_path)
    narrow.backbone.prompter.channels = 4
    fewer = prompted_segmentor(tmp_path, interim_weights=0.4)
    fewer.backbone.prompt_at = PLACES[1:]
    odd = prompted_segmentor(tmp_path, classes=('toad', *CLASSES[1:]))
    tuned = prompted_segmentor(tmp_path, 'head')
    for config, message in (
        (narrow, 'expected tensors of these shapes: matchers.0'),
        (fewer, r"a prompt learned with \{'prompt_at': \['layer2', .*found .*'layer1'"),
        (odd, r"only in the config: \['toad'\]"),
        (tuned, "expected a prompt of method 'head tuning'.*found 'SPM'"),
    ):
        model = build_in(config, 'mmprompt')
        before = state_of(model.decode_head)
        with pytest.raises(UserError, match=message):
            model.load_prompt(prompt)
        assert same(state_of(model.decode_head), before)
    with pytest.raises(UserError, match="method 'head tuning'"):
        build_in(tuned, 'mmprompt').load_prompt(head)
    head.unlink()
    with pytest.raises(UserError, match=r'head\.safetensors: expected a safetensors file, found n'):
        make(tmp_path).load_prompt(prompt)


def test_files_for_another_backbone(tmp_path):
    save_files(learned(tmp_path), tmp_path)
    state = torch.load(tmp_path / 'resnet.pth')
    state['stem.0.weight'] += 1
    config = prompted_segmentor(tmp_path)
    torch.save(state, tmp_path / 'other.pth')
    config.backbone.backbone.init_cfg.checkpoint = str(tmp_path / 'other.pth')
    with pytest.raises(UserError, match=f'found one for {make(tmp_path).base_fingerprint}'):
        build_in(config, 'mmprompt').load_prompt(tmp_path / 'prompt.safetensors')


def test_the_fingerprint_follows_the_weights(tmp_path):
    model = make(tmp_path)
    first = model.base_fingerprint
    state = {f'backbone.{k}': v + 1 for k, v in model.backbone.backbone_state_dict().items()}
    model.load_state_dict(state, strict=False)
    assert model.base_fingerprint == fingerprint(model.backbone.backbone_state_dict()) != first


# ------------------------------------------------------------------ in a detector
@ROOT.register_module(force=True)
class ToyDetector(BaseModel):
    """As much of a detector as its losses ask for."""

    def __init__(self, backbone: dict, data_preprocessor: dict | None = None) -> None:
        super().__init__(data_preprocessor)
        self.backbone = ROOT.build(backbone)

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        return dict(loss_toy=self.backbone(batch_inputs)[-1].square().mean())

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.loss(inputs, data_samples)


def detector(folder, **options) -> BaseModel:
    backbone = prompted_segmentor(folder, classes=CLASSES[:3]).backbone
    config = dict(type='SPMDetector', detector=dict(type='ToyDetector', backbone=backbone))
    return build_in(dict(config, **options), 'mmprompt')


def detections(semantic: bool) -> list[BaseDataElement]:
    """Two samples whose pictures fill a part of the batch."""
    samples = [SegDataSample(), SegDataSample()]
    for sample, size in zip(samples, ((50, 96), (64, 70))) if semantic else ():
        sample.set_metainfo(dict(img_shape=size))
        sample.gt_sem_seg = PixelData(sem_seg=torch.randint(3, (1, *size)))
    return samples


def test_a_detector_gains_interim_losses_where_there_are_labels(tmp_path):
    model = detector(tmp_path, interim_weights=[0, 1, 0.5, 0, 0]).eval()
    assert type(model) is ToyDetector
    open_up(model.backbone)
    images = torch.randn(2, 3, *SIZE)
    assert set(model(images, detections(False), mode='loss')) == {'loss_toy'}
    samples = detections(True)
    losses = model(images, samples, mode='loss')
    assert set(losses) == {'loss_toy', 'interim_1.loss_ce', 'interim_2.loss_ce'}
    labels = torch.full((2, *SIZE), 255)
    labels[0, :50], labels[1, :, :70] = (s.gt_sem_seg.sem_seg[0] for s in samples)
    with model.backbone.recording() as interim:
        model.backbone(images)
    torch.testing.assert_close(losses['interim_1.loss_ce'], cross_entropy(interim[1], labels))
    torch.testing.assert_close(losses['interim_2.loss_ce'], cross_entropy(interim[2], labels) / 2)


@pytest.mark.parametrize('size', [(8, 12), (70, 96), (50, 95)], ids=str)
def test_labels_of_another_size_than_their_picture(size, tmp_path):
    """Such as those of SegRescale; padded or cut they would lie beside the picture."""
    model = detector(tmp_path).eval()
    samples = detections(True)
    samples[0].gt_sem_seg = PixelData(sem_seg=torch.randint(3, (1, *size)))
    with pytest.raises(UserError, match=r'picture, \(50, 96\), or of the batch, \(64, 96\), found'):
        model(torch.randn(2, 3, *SIZE), samples, mode='loss')


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda m: pickle.load(io.BytesIO(pickle.dumps(m)))]
)
def test_a_copied_detector_is_on_its_own(copied, tmp_path):
    model = detector(tmp_path)
    twin = copied(model)
    assert twin.loss.detector is twin and model.loss.detector is model
    open_up(twin.backbone)
    before = model(torch.ones(2, 3, *SIZE), detections(False))
    assert twin(torch.ones(2, 3, *SIZE), detections(False)) != before


def test_a_detector_takes_the_preprocessor_of_its_config(tmp_path):
    preprocessor = dict(type='mmengine.ImgDataPreprocessor', pad_size_divisor=7)
    assert (
        detector(tmp_path, data_preprocessor=preprocessor).data_preprocessor.pad_size_divisor == 7
    )


def test_a_detector_without_the_wrapper():
    config = dict(type='SPMDetector', detector=dict(type='ToyDetector', backbone=RESNET))
    with pytest.raises(ValueError, match='expected an SPMBackbone, found ResNetV1c'):
        build_in(config, 'mmprompt')
