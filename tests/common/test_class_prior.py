"""The file of class frequencies: what is written is read, and everything else is refused."""

import json

import pytest

from mmprompt.common.class_prior import read_class_prior, save_class_prior
from mmprompt.common.errors import UserError

CLASSES = ('background', 'vessel', 'disc')


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'new folder' / 'prior.json'
    assert save_class_prior(path, CLASSES, [6, 0, 2], images=3, ignored=1) == [0.75, 0, 0.25]
    return path


def change(path, **kwargs) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **kwargs}))


def test_what_is_written_is_read(path):
    assert read_class_prior(path, 3) == [0.75, 0, 0.25]
    assert read_class_prior(str(path), 3, list(CLASSES)) == [0.75, 0, 0.25]
    content = json.loads(path.read_text())
    assert content == dict(
        format=1,
        kind='class-prior',
        images=3,
        classes=list(CLASSES),
        pixels=[6, 0, 2],
        ignored_pixels=1,
        frequencies=[0.75, 0, 0.25],
    )


def test_nothing_counted_is_refused_and_not_written(tmp_path):
    with pytest.raises(UserError, match='found none .all 5 are ignored'):
        save_class_prior(tmp_path / 'a.json', CLASSES, [0, 0, 0], images=1, ignored=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(kind='few-shot'), "something else .kind 'few-shot'"),
        (dict(format='1'), "something else .format '1'"),
        (dict(format=2), 'of format 1, found format 2. Update mmprompt'),
        (dict(frequencies=[0.5, 0.5]), '3 classes and 2 frequencies'),
        (dict(frequencies=[0.5, 0.25, 0.5]), 'sum to 1.25'),
        (dict(frequencies=[1.5, -0.25, -0.25]), 'the frequency 1.5'),
        (dict(frequencies=[float('nan'), 0.5, 0.5]), 'the frequency nan'),
        (dict(frequencies=[True, 0, 0]), 'the frequency True'),
        (dict(frequencies=['1', 0, 0]), "the frequency '1'"),
        (dict(frequencies=[None, 0.5, 0.5]), 'something else'),
        (dict(frequencies=0.5), 'something else'),
    ],
)
def test_other_content_is_refused(path, kwargs, message):
    change(path, **kwargs)
    with pytest.raises(UserError, match=message) as raised:
        read_class_prior(path, 3)
    assert f'{path}: ' in str(raised.value)
    assert f'tools/class_prior.py CONFIG --out {path}' in str(raised.value)


@pytest.mark.parametrize('text', ['', '{"format": 1', '[1, 2]', '{}', '\xff'])
def test_other_files_are_refused(path, text):
    path.write_bytes(text.encode('latin-1'))
    with pytest.raises(UserError, match='expected a class prior, found something else'):
        read_class_prior(path, 3)


def test_a_missing_file_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r'b\.json: .*no such file.*tools/class_prior\.py CONFIG'):
        read_class_prior(tmp_path / 'b.json', 3)


def test_other_classes_are_refused(path):
    with pytest.raises(UserError, match='of 2 classes, found 3 .background, vessel, disc'):
        read_class_prior(path, 2)
    swapped = ('background', 'disc', 'vessel')
    with pytest.raises(UserError, match=r"'vessel' where 'disc' is expected \(2 differ\)"):
        read_class_prior(path, 3, swapped)
