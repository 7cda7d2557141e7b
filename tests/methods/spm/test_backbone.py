"""The wrapper: what it returns, the chain of its matchers, and how it is built."""

import copy
import json

import pytest
import torch
from drop_in import build, same, stir
from prompted import BACKBONES, CLASSES, PLACES, RESNET, SIZE, flat, images, open_up, wrapped
from torch import Tensor, nn
from torch.nn import functional as F

from mmprompt.common.errors import UserError
from mmprompt.methods.spm import SPMBackbone

every_backbone = pytest.mark.parametrize('name', BACKBONES)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def frozen(config: dict) -> nn.Module:
    """The bare backbone; PyTorch rounds otherwise where a weight asks for a gradient."""
    bare = build(config).requires_grad_(False)
    bare.eval()
    return bare


# ------------------------------------------------------------------ what it returns
@pytest.mark.parametrize('size', [SIZE, (70, 90), (96, 64)], ids=str)
@every_backbone
def test_it_begins_as_the_backbone_itself(name, size):
    config, places = BACKBONES[name]
    bare, model = frozen(config), wrapped(config, places)
    model.load_base()
    model.backbone.load_state_dict(stir(bare))
    picture = images(size=size)
    for mode in (False, True):  # BatchNorm and dropout of the backbone stay as in testing
        model.train(mode)
        with torch.no_grad():
            assert same(model(picture), bare(picture))


@every_backbone
def test_only_out_changes_what_is_returned_by_a_stage(name):
    config, places = BACKBONES[name]
    picture = images()
    inside = open_up(wrapped(config, places[:-1])).eval()
    whole = open_up(wrapped(config, places)).eval()
    whole.load_state_dict(inside.state_dict(), strict=False)
    without, expected = inside(picture), whole.backbone(picture)
    assert [t.shape for t in flat(without)] == [t.shape for t in flat(expected)]
    result = whole(picture)
    differ = [not torch.equal(a, b) for a, b in zip(flat(result), flat(without))]
    last = -2 if name == 'vit' else -1  # beside its last map lies the class token
    assert [i for i, other in enumerate(differ) if other] == [len(differ) + last]


# ------------------------------------------------------------------ Eqs. 1 and 2 along the chain
def test_the_chain_of_stages_and_matchers():
    prior = [0.5, 0.375, 0.125]
    model = open_up(wrapped(class_prior=prior)).double().eval()
    picture = images().double()
    with model.recording() as interim:
        result = model(picture)
    backbone = model.backbone
    feature = backbone.maxpool(backbone.stem(picture))
    semantic = torch.tensor(prior, dtype=torch.double)[None, :, None, None]  # M_0
    semantic = semantic.expand(2, CLASSES, *feature.shape[2:])
    expected, logits = [], []
    for place, matcher in zip(PLACES, model.matchers):
        semantic = F.interpolate(semantic, feature.shape[2:], mode='bilinear')
        prompt, semantic, one = matcher(feature, semantic)
        feature = feature + prompt
        logits.append(one)
        if place != 'out':
            feature = getattr(backbone, place)(feature)
            expected.append(feature)
        else:
            expected[-1] = feature
    for one, other in zip([*result, *interim], [*expected, *logits], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@every_backbone
def test_each_stage_runs_alone_on_its_prompted_input(name):
    """What fixed hardware asks for: a stage knows nothing of prompts."""
    config, places = BACKBONES[name]
    model = open_up(wrapped(config, places)).eval()
    # A place inside a stage cuts it in two; then only the inner one is a stage of its own.
    places = [p for p in places[:-1] if not any(other.startswith(f'{p}.') for other in places)]
    record: dict[str, tuple] = {}

    def note(place: str):
        return lambda module, given, out: record.update({place: (given, out)})

    # Behind the wrapper's own hook: with the prompt.
    stages = [(place, model.backbone.get_submodule(place)) for place in places]
    handles = [stage.register_forward_hook(note(place)) for place, stage in stages]
    bare = frozen(config)
    bare.load_state_dict(model.backbone_state_dict())
    with torch.no_grad():
        model(images())
        for handle in handles:
            handle.remove()
        for place, (given, out) in record.items():
            for owner in (model.backbone, bare):
                alone = owner.get_submodule(place)(*given)
                assert same(tensors(alone), tensors(out))
    assert list(record) == places


def tensors(result) -> list[Tensor]:
    result = result if isinstance(result, (tuple, list)) else [result]
    return [value for value in result if isinstance(value, Tensor)]


def test_one_prompter_for_each_place():
    prompter = [dict(type='SPM', channels=c) for c in (4, 8, 12, 16, 20)]
    model = wrapped(prompter=prompter)
    assert [m.prompt.project.in_channels for m in model.matchers] == [4, 8, 12, 16, 20]
    assert [m.prompt.project.out_channels for m in model.matchers] == [8, 8, 16, 32, 64]
    with pytest.raises(ValueError, match=r'one for each of the 5 places .*, found 4'):
        wrapped(prompter=prompter[:4])
    wrapped(prompter=prompter[:4], tuning='head')


def test_channels_that_the_user_names_are_compared():
    wrapped(in_channels=[8, 8, 16, 32, 64])
    with pytest.raises(ValueError, match=r'expected \[8, 8, 16, 32, 64\] at .*, found \[8\]'):
        wrapped(in_channels=[8])


def test_pictures_of_four_channels():
    model = wrapped(dict(RESNET, in_channels=4))
    assert len(model(torch.randn(1, 4, *SIZE))) == 4


# ------------------------------------------------------------------ M_0
def about_prior(lines: list[str]) -> list[str]:
    return [line for line in lines if 'M_0' in line]


def m_0(model: SPMBackbone) -> list[float]:
    """What the first matcher is given, which is the same everywhere."""
    seen = []
    model.matchers[0].register_forward_pre_hook(lambda m, args: seen.append(args[1]))
    model(images())
    assert (seen[0] == seen[0][:1, :, :1, :1]).all()
    return seen[0][0, :, 0, 0].tolist()


def test_prior_from_a_list_and_from_a_file(tmp_path, warned):
    values = [0.5, 0.125, 0.375]
    path = tmp_path / 'prior.json'
    content = dict(format=1, kind='class-prior', classes=list('abc'), frequencies=values)
    path.write_text(json.dumps(content))
    for prior in (values, tuple(values), str(path), path):
        assert m_0(wrapped(class_prior=prior)) == values
    assert not about_prior(warned)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('prior', [None, 'nowhere.json'])
def test_absent_prior_is_uniform_with_one_warning(prior, training, warned):
    model = wrapped(class_prior=prior).train(training)
    assert m_0(model) == pytest.approx([1 / 3] * 3)
    model(images())
    (line,) = about_prior(warned)
    assert 'tools/class_prior.py CONFIG' in line and (prior or 'no class prior') in line


@pytest.mark.parametrize('prior', [[0.5, 0.5], [0.5, 0.6, 0.1], [1.5, -0.5, 0], [float('nan')] * 3])
def test_a_prior_that_does_not_fit(prior):
    with pytest.raises(UserError, match='class_prior: expected 3 frequencies that sum to 1, found'):
        wrapped(class_prior=prior).load_base()


def test_a_prior_belongs_to_what_is_saved(warned):
    state = open_up(wrapped(class_prior=[0.7, 0.2, 0.1])).state_dict()
    other = wrapped()
    other.load_state_dict(state)
    assert m_0(other.train()) == pytest.approx([0.7, 0.2, 0.1]) and not about_prior(warned)
    assert not any('prior' in name for name in wrapped(tuning='full').state_dict())


# ------------------------------------------------------------------ building
def test_a_replica_of_data_parallel_is_refused():
    """Its stages are copies, which hooks do not reach with the replica's matchers."""
    with pytest.raises(UserError, match='DataParallel.*torchrun'):
        wrapped()._replicate_for_data_parallel()(images())


def test_building_reads_no_file_and_runs_on_no_device():
    nowhere = dict(type='Pretrained', checkpoint='nowhere.pth')
    config = dict(RESNET, init_cfg=nowhere)
    with torch.device('meta'):
        model = wrapped(config, class_prior='nowhere.json')
    assert all(value.is_meta for value in model.state_dict().values())
    with pytest.raises(UserError, match='nowhere.pth'):
        wrapped(config)(images())


def test_a_config_is_not_changed():
    config = dict(RESNET, init_cfg=dict(type='Pretrained', checkpoint='a.pth'))
    before = copy.deepcopy(config)
    prompter = dict(type='SPM', channels=8)
    SPMBackbone(config, PLACES, CLASSES, prompter=prompter, tuning='scratch', pretrained='b.pth')
    SPMBackbone(config, PLACES, CLASSES, prompter=prompter)
    assert config == before and prompter == dict(type='SPM', channels=8)


def test_matchers_follow_an_init_cfg():
    model = wrapped(matcher=dict(init_cfg=dict(type='Constant', layer='Conv2d', val=0.5)))
    model.init_weights()
    assert all((matcher.prompt.project.weight == 0.5).all() for matcher in model.matchers)
    model.matchers[0].prompt.project.weight.data.zero_()
    model.init_weights()
    assert not model.matchers[0].prompt.project.weight.any()
