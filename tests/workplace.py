"""A user's folder of images and masks, and the command that learns from it."""

import numpy as np
from PIL import Image
from toy import write_base

from mmprompt.apis.learn.command import main


class Workplace:
    """Eight images of three classes, a toy base, and the command."""

    def __init__(self, root):
        self.root, self.out = root, root / 'out'
        self.base = write_base(root / 'base.safetensors')
        random = np.random.default_rng(0)
        for i in range(8):
            cells = random.permutation(24) % 3
            label = cells.reshape(4, 6).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            image = np.stack([label * 90, 200 - label * 60, label * 20], -1)
            image = np.clip(image + random.integers(0, 9, image.shape), 0, 255).astype(np.uint8)
            self.save(image, f'photos/street_{i}.png')
            self.save(label, f'masks/street_{i}.png')
        (root / 'classes.txt').write_text('road\nsky\ncar\n')

    def save(self, array, name, **how):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, **how)

    def label(self, i=0):
        return np.asarray(Image.open(self.root / f'masks/street_{i}.png'))

    def run(self, *more, masks=True):
        given = ['--images', self.root / 'photos', '--classes', self.root / 'classes.txt']
        given += ['--masks', self.root / 'masks'] if masks else []
        given += ['--base', self.base, '--out', self.out, '--workers', 0, '--steps', 2]
        return main([str(a) for a in (*given, *more)])


def refused(place, capsys, *more, **how):
    """The one line that a call ends with; nothing was made."""
    assert place.run(*more, **how) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith('error: ') and not place.out.exists()
    return lines[-1]
