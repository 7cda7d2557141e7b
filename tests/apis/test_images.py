"""Reading what users have: orientations, grey, damage; names that never clash."""

import cv2
import numpy as np
import pytest
from PIL import Image
from prompt_files import write_picture, write_video

from mmprompt.apis.images import find_sources, read_frames, read_picture
from mmprompt.common.errors import UserError

TURN = 274  # EXIF's tag of the orientation


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_are_read_as_they_are_viewed(tmp_path, orientation):
    exif = Image.Exif()
    exif[TURN] = orientation
    path = tmp_path / 'turned.png'
    write_picture(path, exif=exif)
    viewed = cv2.imread(str(path))[..., ::-1]  # OpenCV turns pictures, too
    assert np.array_equal(read_picture(path), viewed)
    assert viewed.shape[:2] == ((40, 56) if orientation < 5 else (56, 40))


def test_other_kinds_of_images_become_rgb(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    for name, image in {
        'grey': Image.fromarray(grey),
        'palette': Image.fromarray(grey).convert('P'),
        'see-through': Image.fromarray(grey).convert('RGBA'),
        'deep': Image.fromarray(grey.astype(np.uint16) * 257),
    }.items():
        image.save(tmp_path / f'{name}.png')
        found = read_picture(tmp_path / f'{name}.png')
        assert found.dtype == np.uint8 and np.array_equal(found, grey[..., None].repeat(3, 2)), name


@pytest.mark.parametrize('damage', ['cut', 'text', 'missing', 'empty'])
def test_what_is_no_image_is_named(tmp_path, damage):
    path = tmp_path / 'street.jpg'
    if damage != 'missing':
        write_picture(path, (200, 300))
        whole = path.read_bytes()
        path.write_bytes(dict(cut=whole[: len(whole) // 2], text=b'no image', empty=b'')[damage])
    with pytest.raises(UserError, match=r'street\.jpg: expected'):
        read_picture(path)


def names(found):
    return [str(source.name) for source in found]


def test_folders_keep_their_subfolders_and_other_files_are_passed_over(tmp_path):
    for name in ('b.png', 'a.JPG', 'sub/a.png', 'sub/deep/c.webp'):
        write_picture(tmp_path / 'in' / name)
    (tmp_path / 'in' / 'notes.txt').write_text('x')
    (tmp_path / 'in' / '._b.png').write_text('left by a copy')
    assert sorted(names(find_sources([tmp_path / 'in']))) == ['a', 'b', 'sub/a', 'sub/deep/c']
    assert names(find_sources([f'{tmp_path}/in/*.png'])) == ['b']
    assert names(find_sources([f'{tmp_path}/in/**/*.png'])) == ['b', 'a']
    assert names(find_sources([tmp_path / 'in/b.png', tmp_path / 'in/b.png'])) == ['b']


def test_no_two_names_are_equal(tmp_path):
    files = ['x/a.png', 'y/a.png', 'y/a.jpg', 'p/s/a.png', 'q/s/a.png', 'y/A.PNG', 'y/z.png']
    for name in files:
        write_picture(tmp_path / name)
    found = names(find_sources([tmp_path / name for name in files]))
    assert len({name.lower() for name in found}) == len(files)
    assert found[-1] == 'z' and 'p/s/a' in found and 'q/s/a' in found
    found = names(find_sources([tmp_path / 'p', tmp_path / 'q', tmp_path / 'x']))
    assert found == ['p/s/a', 'q/s/a', 'a']


def test_nothing_found_is_said(tmp_path):
    (tmp_path / 'empty').mkdir()
    for given, found in ((tmp_path / 'empty', 'an empty folder'), (tmp_path / 'no.png', 'nothing')):
        with pytest.raises(UserError, match=f'found {found}'):
            find_sources([given])


def test_frames_come_in_order_with_their_numbers(tmp_path):
    greys = write_video(tmp_path / 'drive.avi')
    found = list(read_frames(tmp_path / 'drive.avi'))
    assert [number for number, _ in found] == [0, 1, 2, 3, 4]
    for (_, frame), grey in zip(found, greys):
        assert frame.shape == (32, 64, 3) and abs(float(frame.mean()) - grey) < 3
    later = list(read_frames(tmp_path / 'drive.avi', first=3))
    assert [number for number, _ in later] == [3, 4]
    assert np.array_equal(later[0][1], found[3][1])


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / 'drive.mp4').write_bytes(b'no video')
    for name in ('drive.mp4', 'none.mp4'):
        with pytest.raises(UserError, match=f'{name}: expected a video'):
            list(read_frames(tmp_path / name))
