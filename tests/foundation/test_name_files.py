"""Class names in files and in one line: comments, synonyms, duplicates, and where they stand."""

from pathlib import Path

import pytest

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem.name_files import parse_names, read_lines, read_name_file


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / 'classes.txt'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('road\n\nsky\n\n', 'blank lines 2, 4'),
        ('road\n \t\nsky', 'blank line 2'),
        ('', 'blank line 1'),
        ('# nothing', 'expected lines of text'),
        ('road\nsky #blue', 'line 2: expected a space on both sides'),
        (b'road\nstra\xdfe', 'line 2: expected UTF-8 text, found the byte 0xdf'),
    ],
)
def test_a_file_that_cannot_be_read_right_is_refused(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        read_lines(written(tmp_path, text))


def test_comments(tmp_path):
    path = written(tmp_path, '#a\n  # b\nC# book\nroad # c # d\nsky #\n道路\n')
    lines = [('line 3', 'C# book'), ('line 4', 'road'), ('line 5', 'sky'), ('line 6', '道路')]
    assert read_lines(path) == lines


def test_a_comma_is_never_guessed_at():
    lines = [('line 1', 'wall'), ('line 2', 'door, screen')]
    with pytest.raises(UserError, match=r"x\.txt, line 2: .*'door, screen'.*--commas"):
        parse_names(lines, 'x.txt')
    assert parse_names(lines, 'x.txt', 'name') == [['wall'], ['door, screen']]
    assert parse_names(lines, 'x.txt', 'synonyms') == [['wall'], ['door', 'screen']]
    assert parse_names([('line 1', 'a,b|c')], '', 'name') == [['a,b', 'c']]
    assert parse_names([('line 1', 'a,b|c')], '', 'synonyms') == [['a', 'b', 'c']]


@pytest.mark.parametrize(
    ('texts', 'words'),
    [
        (['road', 'sky', 'Road '], "'Road' in line 1 and line 3"),
        (
            ['wall', 'wall-other', 'sky', 'Sky'],
            "'wall-other' in line 1 and line 2; 'Sky' in line 3",
        ),
        (['road | street | ROAD'], "'ROAD' twice in line 1"),
        (['road |'], 'line 1: expected a name before and after'),
        (['road', '-other'], 'line 2: expected a name'),
    ],
)
def test_duplicates_and_empty_names_have_their_lines(texts, words):
    with pytest.raises(UserError, match=words):
        parse_names([(f'line {i}', text) for i, text in enumerate(texts, 1)], 'x.txt')


def test_a_synonym_may_serve_two_classes():
    lines = [('line 1', 'screen | monitor'), ('line 2', 'crt | monitor')]
    assert parse_names(lines, 'x.txt') == [['screen', 'monitor'], ['crt', 'monitor']]


def test_a_file_of_names(tmp_path):
    path = written(tmp_path, '# two classes\nroad\ntruck | lorry  # one thing\n')
    assert read_name_file(path) == [['road'], ['truck', 'lorry']]
    with pytest.raises(UserError, match='line 2.*no comma'):
        read_name_file(written(tmp_path, 'road\ntruck, lorry\n'))
