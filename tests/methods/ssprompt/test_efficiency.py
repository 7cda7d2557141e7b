"""What training computes and keeps: no graph where nothing is learned, no image encoded twice."""

from collections import Counter

import pytest
import torch
from mmengine.registry import MODELS
from toy import toy_batch, toy_seem, toy_segmentor, write_base

from mmprompt.methods.ssprompt.methods import METHODS

# Whether gradients pass the decoder's layers, and the text encoder.
GRAPHS = {
    **dict.fromkeys(('ssprompt', 'spaprompt', 'vspl', 'full'), (True, False)),
    **dict.fromkeys(('ssprompt-embedding-only', 'spaprompt-embedding-only'), (True, False)),
    **dict.fromkeys(('semprompt', 'semprompt-embedding-only', 'head'), (False, False)),
    **dict.fromkeys(('coop', 'coop-m4', 'coop-csc', 'locn'), (False, True)),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / 'base.safetensors')


def build(base, method, seem=None, **model):
    torch.manual_seed(0)  # CoOp starts anywhere
    model = MODELS.build(toy_segmentor(base, seem, method=method, **model))
    model.load_base()
    return model.train()


def loss_of(model, flip=False, batch=2):
    data = toy_batch(batch)
    if flip:
        data['inputs'] = [image.flip(-1) for image in data['inputs']]
        for sample in data['data_samples']:
            sample.gt_sem_seg.data = sample.gt_sem_seg.data.flip(-1)
    data = model.data_preprocessor(data, training=True)
    return model(**data, mode='loss')['decode.loss_sem']


def test_every_method_that_learns_is_listed():
    assert set(GRAPHS) == {name for name in METHODS if not name.startswith('zero-shot')}


@pytest.mark.parametrize('method', GRAPHS)
def test_gradients_pass_only_where_something_is_learned_behind(base, method):
    model, seen = build(base, method), Counter()
    head = model.decode_head

    def watch(name):
        def hook(module, inputs, output):
            tensors = [output] if torch.is_tensor(output) else [*output.multi_scale]
            seen[name, any(t.requires_grad for t in tensors)] += 1

        return hook

    encoder = getattr(head.semantic_prompt, 'text_encoder', None)
    head.pixel_decoder.register_forward_hook(watch('image'))
    for layer in head.decoder.layers:
        layer.register_forward_hook(watch('layers'))
    for block in encoder.blocks if encoder is not None else ():
        block.register_forward_hook(watch('text'))
    loss_of(model).backward()

    through_layers, through_text = GRAPHS[method]
    graphs = {name for (name, graph), _ in seen.items() if graph}
    expected = dict(layers=through_layers, text=through_text, image=method == 'full')
    assert graphs == {name for name, wanted in expected.items() if wanted}
    assert ('layers', not through_layers) not in seen
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) <= parameter.requires_grad, name


def saved_for_backward(model) -> tuple[int, int]:
    """How many tensors the graph keeps that are no parameters, and their bytes."""
    own = {p.data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(model)
    assert loss.requires_grad  # and with it all that it keeps, while it is counted
    return len(kept), sum(kept.values())


@pytest.mark.parametrize('method', ['semprompt', 'coop', 'locn', 'head', 'spaprompt', 'ssprompt'])
def test_what_a_step_keeps_grows_with_the_layers_only_for_spatial_prompts(tmp_path, method):
    kept = []
    for layers in (3, 9):
        seem = toy_seem()
        seem['decoder']['num_layers'] = layers
        path = write_base(tmp_path / f'{layers}.safetensors', seem)
        kept.append(saved_for_backward(build(path, method, seem)))
    (few, few_bytes), (many, many_bytes) = kept
    if GRAPHS[method][0]:
        assert many > 2 * few and many_bytes > few_bytes
    else:
        assert kept[0] == kept[1]


def losses_of_steps(base, method, cache=None, steps=6, batch=2) -> torch.Tensor:
    """Losses of training steps on two images that come again, flipped at every other time."""
    model = build(base, method, feature_cache=cache)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for step in range(steps):
        loss = loss_of(model, flip=bool(step % 2), batch=batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@pytest.mark.parametrize('method', ['ssprompt', 'semprompt', 'vspl', 'coop', 'locn', 'head'])
@pytest.mark.parametrize('place', ['memory', 'files'])
def test_losses_with_and_without_cache_are_equal(base, tmp_path, method, place):
    """fp32: to the last bit on a CPU; bf16 rounds every feature by up to 1 part in 256."""
    root = None if place == 'memory' else str(tmp_path / 'features')
    plain = losses_of_steps(base, method)
    assert torch.equal(losses_of_steps(base, method, dict(root=root)), plain)
    # From files of an earlier run, where there are any.
    assert torch.equal(losses_of_steps(base, method, dict(root=root)), plain)
    rounded = losses_of_steps(base, method, dict(root=root, dtype='bf16'))
    torch.testing.assert_close(rounded, plain, rtol=0.01, atol=0)
    assert not torch.equal(rounded, plain)


def test_each_view_is_encoded_once(base):
    model, calls = build(base, 'ssprompt', feature_cache=dict(root=None)), []
    model.backbone.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs)))
    for step in range(6):
        loss_of(model, flip=bool(step % 2))
    assert calls == [1] * 4, 'two images, each as it is and flipped'


def test_a_batch_is_encoded_as_its_images_are(base):
    model = build(base, 'ssprompt')
    images = torch.randn(3, 3, 64, 64)
    whole = model.extract_feat(images).as_dict()
    for index, image in enumerate(images):
        for name, alone in model.extract_feat(image[None]).as_dict().items():
            assert torch.equal(whole[name][index], alone[0])
