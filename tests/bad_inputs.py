"""Ways to spoil a sound place, for test_bad_input.py.

Each case spoils the place and returns a command, its arguments, and words that the error must hold.
"""

import os
from pathlib import Path

import numpy as np
import torch
import toy
from mmengine.config import Config
from PIL import Image
from prompt_files import prompt_of

from mmprompt.common.checkpoint import save_tensors
from mmprompt.registry import MODELS


def build(folder: Path) -> None:
    """A config, a base, data, a prompt and an earlier result."""
    data = toy.write_streets(folder / 'data')
    base = toy.write_base(folder / 'base.safetensors')
    load = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]

    def loader(split, steps):
        return dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='ResumableSampler'),
            dataset=dict(
                type='mmseg.CityscapesDataset',
                data_root=str(data),
                data_prefix=dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'),
                pipeline=[*load, *steps, dict(type='mmseg.PackSegInputs')],
            ),
        )

    val = dict(loader('val', []), sampler=dict(type='DefaultSampler', shuffle=False))
    config = dict(
        default_scope='mmprompt',
        custom_imports=dict(imports=['mmprompt']),
        model=toy.toy_segmentor(base).to_dict(),
        train_dataloader=loader('train', [dict(type='mmseg.RandomFlip', prob=0.5)]),
        val_dataloader=val,
        test_dataloader=val,
        val_evaluator=dict(type='mmseg.IoUMetric'),
        test_evaluator=dict(type='mmseg.IoUMetric'),
        val_cfg=dict(),
        test_cfg=dict(),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
        load_from=None,
    )
    Config(config).dump(folder / 'config.py')
    (folder / 'out').mkdir()
    (folder / 'out' / 'prompt.safetensors').write_bytes(b'an earlier result')
    (folder / 'out' / 'config.py').write_bytes(b'an earlier config')


def image(place, split='train', number=1):
    return place / f'data/leftImg8bit/{split}/toy/toy_{number:06d}_000000_leftImg8bit.png'


def label(place, split='train', number=1):
    return place / f'data/gtFine/{split}/toy/toy_{number:06d}_000000_gtFine_labelTrainIds.png'


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def missing_folder(place):
    (place / 'data/gtFine/train').rename(place / 'data/gtFine/elsewhere')
    return 'train', [], [str(place / 'data/gtFine/train'), 'data_prefix.seg_map_path']


def missing_test_folder(place):
    option = ['--cfg-options', 'test_dataloader.dataset.data_root=nowhere']
    return 'test', option, ['nowhere: ', 'data_root']


def empty_split(place):
    for path in (place / 'data/leftImg8bit/train/toy').iterdir():
        path.rename(path.with_suffix('.jpg'))
    return 'train', [], ['leftImg8bit/train', "'_leftImg8bit.png'", '4 files', 'img_suffix']


def image_without_label(place):
    label(place).unlink()
    return 'train', [], [str(image(place)), str(label(place)), 'no such file']


def validation_image_without_label(place):
    label(place, 'val').unlink()
    return 'train', [], [str(image(place, 'val')), str(label(place, 'val'))]


def _spoil_label(path):
    pixels = np.asarray(Image.open(path)).copy()
    pixels[8:, ::2] = 77
    Image.fromarray(pixels).save(path)


def label_outside_classes(place):
    _spoil_label(label(place))
    return 'train', [], [str(label(place)), '0 to 18', '255', '77 (']


def label_outside_classes_in_a_worker(place):
    _spoil_label(label(place))
    option = ['--cfg-options', 'train_dataloader.num_workers=2']
    return 'train', option, [str(label(place)), '0 to 18', '77 (']


def label_outside_classes_for_a_split(place):
    _spoil_label(label(place))
    return 'split', ['--k', '1', '--out', 'out/m.json'], [str(label(place)), '77 (']


def colour_label(place):
    path = label(place)
    Image.open(path).convert('RGB').save(path)
    return 'train', [], [str(path), 'one channel', '3 channels']


def truncated_png(place):
    cut(image(place))
    return 'train', [], [str(image(place)), 'cut']


def png_without_its_last_bytes(place):
    cut(image(place, 'val'), 0.999)
    return 'test', [], [str(image(place, 'val')), 'cut']


def truncated_label_in_a_worker(place):
    cut(label(place))
    option = ['--cfg-options', 'train_dataloader.num_workers=2']
    return 'train', option, [str(label(place)), 'cut']


def damaged_png(place):
    data = bytearray(image(place).read_bytes())
    data[60:200] = bytes(140)
    image(place).write_bytes(data)
    return 'train', [], [str(image(place)), 'damaged']


def label_of_another_size(place):
    Image.open(label(place)).resize((64, 48), 0).save(label(place))
    for other in (0, 2, 3):
        image(place, number=other).unlink()
        label(place, number=other).unlink()
    option = ['--cfg-options', 'train_dataloader.batch_size=1']
    return 'train', option, [str(label(place)), '64x32', '64x48']


def _prompt(place, model=None, **changes):
    built = MODELS.build(toy.toy_segmentor(place / 'base.safetensors', **(model or {})))
    prompt = prompt_of(built)
    for key, value in changes.items():
        setattr(prompt, key, value)
    prompt.save(place / 'prompt.safetensors')
    return prompt


def prompt_of_another_base(place):
    found = _prompt(place).base_fingerprint
    toy.write_base(place / 'base.safetensors', seed=1)
    return 'test', ['prompt.safetensors'], ['prompt.safetensors', found, 'base']


def prompt_of_other_classes(place):
    _prompt(place, classes=[*toy.CLASSES[:-1], 'tram'])
    return 'test', ['prompt.safetensors'], ['prompt.safetensors', 'tram', 'bicycle']


def prompt_of_swapped_classes(place):
    _prompt(place, classes=[toy.CLASSES[1], toy.CLASSES[0], *toy.CLASSES[2:]])
    words = ['prompt.safetensors', 'another order', "'road'", "'sidewalk'"]
    return 'test', ['prompt.safetensors'], words


def _prompt_of_spatial(place, **keys):
    prompt = dict(type='SpaPrompt', num_prompts=toy.PROMPTS, **keys)
    _prompt(place, dict(decode_head=dict(spatial_prompt=prompt)))


def prompt_of_another_shape(place):
    _prompt_of_spatial(place, source='both')
    words = ['prompt.safetensors', 'spatial_prompt.offset', '(9, 16)', '(18, 16)']
    return 'test', ['prompt.safetensors'], words


def prompt_of_another_reading(place):
    _prompt_of_spatial(place, source='query_pos')
    words = ['prompt.safetensors', 'spatial_prompt.source', "'query'", "'query_pos'"]
    return 'test', ['prompt.safetensors'], words


def prompt_cut_in_half(place):
    _prompt(place)
    cut(place / 'prompt.safetensors', 0.5)
    return 'test', ['prompt.safetensors'], ['prompt.safetensors', 'cut']


def not_a_prompt(place):
    return 'test', ['base.safetensors'], ['base.safetensors', 'prompt file', 'seem']


def not_even_safetensors(place):
    (place / 'prompt.safetensors').write_bytes(image(place).read_bytes())
    return 'test', ['prompt.safetensors'], ['prompt.safetensors', 'something else']


def prompt_of_a_newer_format(place):
    metadata = {'kind': 'prompt', 'format': '2'}
    save_tensors(place / 'prompt.safetensors', {'x': torch.ones(1)}, metadata)
    return 'test', ['prompt.safetensors'], ['prompt.safetensors', 'format 1', 'format 2']


def missing_prompt(place):
    return 'test', ['none.safetensors'], ['none.safetensors']


def missing_base(place):
    (place / 'base.safetensors').unlink()
    return 'train', [], [str(place / 'base.safetensors')]


def _edit(place, old, new):
    text = (place / 'config.py').read_text()
    assert old in text
    (place / 'config.py').write_text(text.replace(old, new, 1))


def unknown_argument(place):
    _edit(place, 'drop_path_rate=', 'drop_path_rat=')
    return 'train', [], ['model.backbone.drop_path_rat', 'FocalNet', 'near: drop_path_rate']


def unknown_argument_of_a_dataset(place):
    _edit(place, 'data_root=', 'root_of_data=1, data_root=')
    return 'test', [], ['test_dataloader', 'root_of_data', 'CityscapesDataset']


def unknown_argument_of_the_optimiser(place):
    _edit(place, 'lr=0.1', 'learning_rate=0.1')
    return 'train', [], ['optim_wrapper.optimizer.learning_rate', 'SGD']


def unknown_component(place):
    _edit(place, "'SSPromptSegmentor'", "'SSPromptSegmenter'")
    return 'train', [], ["'SSPromptSegmenter'", 'SSPromptSegmentor']


def absent_option(place):
    option = ['--cfg-options', 'model.decode_head.semantic_prompt.renorm=True']
    return 'train', option, ['model.decode_head.semantic_prompt.renorm', 'type']


def absent_option_in_a_list(place):
    option = ['--cfg-options', 'train_dataloader.dataset.pipeline.9.prob=1']
    return 'test', option, ['train_dataloader.dataset.pipeline.9', 'a list of 4']


def k_larger_than_the_data(place):
    return 'split', ['--k', '5', '--out', 'out/m.json'], ['k=5', '4 images']


def zero_images_of_a_class(place):
    for number in range(4):
        pixels = np.asarray(Image.open(label(place, number=number))).copy()
        pixels[pixels == 16] = 255
        Image.fromarray(pixels).save(label(place, number=number))
    return 'split', ['--k', '2', '--out', 'out/m.json'], ['none for train', '--allow-missing']


def missing_manifest(place):
    _edit(
        place,
        'train_dataloader = dict(\n    batch_size=2,\n    dataset=dict(',
        "train_dataloader = dict(\n    batch_size=2,\n    dataset=dict(manifest='m.json', "
        "type='FewShotDataset', dataset=dict(),) if True else dict(",
    )
    return 'train', [], ['m.json', 'make_few_shot_split.py', 'config.py']


def non_finite_loss(place):
    option = ['--cfg-options', 'model.data_preprocessor.std=[0,0,0]']
    return 'train', option, ['iteration 1', 'loss', '= nan', '_leftImg8bit.png']


class Hostile:
    def __reduce__(self):
        return os.mkdir, ('executed',)


def _hostile(place):
    content = {'state_dict': {}, 'meta': {'iter': 1, 'epoch': 0}, 'message_hub': Hostile()}
    torch.save(content, place / 'hostile.pth')


def hostile_checkpoint_to_train(place):
    _hostile(place)
    option = ['--cfg-options', 'load_from=hostile.pth']
    return 'train', option, ['hostile.pth', 'mkdir', 'Nothing in it was executed']


def hostile_checkpoint_to_resume(place):
    _hostile(place)
    return 'train', ['--resume', 'hostile.pth'], ['hostile.pth', 'mkdir']


def hostile_checkpoint_to_test(place):
    _hostile(place)
    return 'test', ['hostile.pth'], ['hostile.pth', 'mkdir']


def hostile_base(place):
    _hostile(place)
    (place / 'base.safetensors').unlink()
    (place / 'hostile.pth').rename(place / 'base.pth')
    _edit(place, 'base.safetensors', 'base.pth')
    return 'train', [], ['base.pth', 'mkdir']


def checkpoint_without_an_optimiser(place):
    torch.save({'state_dict': {'a': torch.ones(1)}}, place / 'x.pth')
    return 'train', ['--resume', 'x.pth'], ['x.pth', 'optimizer']


CASES = [
    missing_folder,
    missing_test_folder,
    empty_split,
    image_without_label,
    validation_image_without_label,
    label_outside_classes,
    label_outside_classes_in_a_worker,
    label_outside_classes_for_a_split,
    colour_label,
    truncated_png,
    png_without_its_last_bytes,
    truncated_label_in_a_worker,
    damaged_png,
    label_of_another_size,
    prompt_of_another_base,
    prompt_of_other_classes,
    prompt_of_swapped_classes,
    prompt_of_another_shape,
    prompt_of_another_reading,
    prompt_cut_in_half,
    not_a_prompt,
    not_even_safetensors,
    prompt_of_a_newer_format,
    missing_prompt,
    missing_base,
    unknown_argument,
    unknown_argument_of_a_dataset,
    unknown_argument_of_the_optimiser,
    unknown_component,
    absent_option,
    absent_option_in_a_list,
    k_larger_than_the_data,
    zero_images_of_a_class,
    missing_manifest,
    non_finite_loss,
    hostile_checkpoint_to_train,
    hostile_checkpoint_to_resume,
    hostile_checkpoint_to_test,
    hostile_base,
    checkpoint_without_an_optimiser,
]
