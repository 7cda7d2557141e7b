"""The command line that turns a user's class names into a text bank."""

import hashlib
from pathlib import Path

import pytest
import torch
from prompt_files import prompt_of

from mmprompt.apis.prepare import encode
from mmprompt.apis.prepare.encode import closest_pairs, main, read_templates
from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import TextBank
from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.class_names import make_text_bank
from mmprompt.foundation.seem.templates import seem_templates
from mmprompt.registry import MODELS
from tests.toy import CLASSES, toy_batch, toy_seem, toy_segmentor, write_base


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp('base') / 'base.safetensors')


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / 'classes.txt'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def run(base, out, *args) -> int:
    return main(['--base', str(base), '--out', str(out), *map(str, args)])


def test_a_file_becomes_a_bank(base, tmp_path, capsys):
    names = written(tmp_path, '\ufeff# streets\nroad\r\n  traffic   light  # of cars\ntruck | bus')
    out = tmp_path / 'mine.safetensors'
    assert run(base, out, '--names', names) == 0
    bank = TextBank.load(out)
    assert bank.names == ['road', 'traffic light', ['truck', 'bus']]
    assert tuple(bank.templates) == seem_templates()
    torch.testing.assert_close(bank.embeddings.norm(dim=1), torch.ones(4))
    seem = SEEM.from_checkpoint(base)
    rows = seem.embed_classes(['road', 'traffic light', ['truck', 'bus']])
    torch.testing.assert_close(bank.embeddings, rows)
    rgb = torch.randint(256, (3, 32, 64)).float()
    torch.testing.assert_close(
        seem.segment(rgb, classes=bank.embeddings), seem.segment(rgb, classes=rows)
    )
    shown = capsys.readouterr().out
    cosine = rows @ rows.T - 2 * torch.eye(4)
    assert f'{out}: 4 rows of 16 numbers: 3 classes' in shown and '81 templates' in shown
    assert f'cosine {cosine.max():.3f}' in shown


def test_texts_and_templates(base, tmp_path):
    rows = []
    templates = written(tmp_path, 'a photo of a {}.\n# more\nthe {}.')
    for spec in ('bare', templates):
        out = tmp_path / f'{len(rows)}.safetensors'
        assert run(base, out, '--texts', ' road;sky ', '--templates', spec) == 0
        rows.append(TextBank.load(out))
    assert list(rows[0].templates) == ['{}'] and rows[0].names == ['road', 'sky']
    assert list(rows[1].templates) == ['a photo of a {}.', 'the {}.']
    expected = make_text_bank(['road', 'sky'], base, ('{}',)).embeddings
    assert torch.equal(rows[0].embeddings, expected)
    assert not torch.allclose(rows[1].embeddings, expected)


def test_an_existing_file_needs_force(base, tmp_path, capsys):
    out = tmp_path / 'mine.safetensors'
    out.write_text('precious')
    assert run(base, out, '--texts', 'road') == 2
    assert 'error:' in capsys.readouterr().err and out.read_text() == 'precious'
    assert run(base, out, '--texts', 'road', '--force') == 0
    assert TextBank.load(out).names == ['road']


def test_nothing_is_encoded_before_all_is_checked(base, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, 'make_text_bank', lambda *args: pytest.fail('encoded'))
    (tmp_path / 'folder.safetensors').mkdir()
    for out, *args in (
        ('x.pt', '--texts', 'road'),
        ('folder.safetensors', '--texts', 'road', '--force'),
        ('x.safetensors', '--texts', 'road; ;sky'),
        ('x.safetensors', '--texts', 'road', '--templates', tmp_path / 'none.txt'),
        ('x.safetensors', '--names', tmp_path / 'none.txt'),
    ):
        assert run(base, tmp_path / out, *args) == 2


@pytest.mark.parametrize(
    ('base_name', 'text', 'words'),
    [
        (None, 'zebra; road; okapi', ["'zebra'", "'ok"]),
        ('none.safetensors', 'road', ['none.safetensors', 'found nothing']),
        ('mmprompt://none', 'road', ['mmprompt://seem-nano_streets']),
    ],
)
def test_errors_are_sentences(base, base_name, text, words, tmp_path, capsys):
    out = tmp_path / 'x.safetensors'
    assert run(base_name or base, out, '--texts', text) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1
    assert all(word in error for word in words) and not out.exists()


def test_a_place_that_cannot_be_written_is_named(base, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert run(base, tmp_path / 'file' / 'x.safetensors', '--texts', 'road') == 2
    assert 'expected a place to write to' in capsys.readouterr().err


@pytest.mark.parametrize('line', ['a photo', '{} and {}', 'a {name}', '{} {'])
def test_a_bad_template_has_its_line(tmp_path, line):
    with pytest.raises(UserError, match='line 2: .*one .{}.'):
        read_templates(str(written(tmp_path, f'a {{}}.\n{line}')))


def test_similar_pairs_are_sorted_and_warned_about(tmp_path):
    angles = torch.tensor([0.0, 0.1, 1.0, 2.0])
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    bank = TextBank([['car', 'auto'], 'sports_car', 'bus'], rows, '')
    pairs = closest_pairs(bank)
    assert len(pairs) == 6 and pairs[0][1:] == ("'car'", "'sports_car'")
    expected = [0.1, 0.9, 1.0, 1.0, 1.9, 2.0]
    torch.testing.assert_close(
        torch.tensor([p[0] for p in pairs]), torch.tensor(expected).cos(), atol=1e-6, rtol=0
    )
    text = encode.report(bank, tmp_path)
    assert text.count('warning') == 2 and "'car' and 'sports_car' are nearly the same" in text
    assert "'sports_car' has an underscore" in text


def test_a_class_called_background_is_warned_about(tmp_path, capsys):
    seem = toy_seem((*CLASSES, 'background'))
    base = write_base(tmp_path / 'base.safetensors', seem)
    assert run(base, tmp_path / 'x.safetensors', '--texts', 'road;background') == 0
    shown = capsys.readouterr().out
    assert "warning: 'background' and the no-object row" in shown and 'cosine 1.0000' in shown


def test_the_bank_serves_a_segmentor(base, tmp_path):
    names = [[name, CLASSES[0]] if i else name for i, name in enumerate(CLASSES)]
    lines = '\n'.join(n if isinstance(n, str) else ' | '.join(n) for n in names)
    out = tmp_path / 'mine.safetensors'
    assert run(base, out, '--names', written(tmp_path, lines), '--templates', 'bare') == 0
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    head = dict(text_bank=str(out))
    by_bank = MODELS.build(toy_segmentor(base, decode_head=head, templates=None))
    by_text = MODELS.build(toy_segmentor(base, texts=names))
    data = by_text.data_preprocessor(toy_batch())['inputs']
    with torch.no_grad():
        torch.testing.assert_close(by_bank.eval()(data), by_text.eval()(data))
    assert prompt_of(by_bank).recipe['text'] == prompt_of(by_text).recipe['text']
    assert hashlib.sha256(out.read_bytes()).hexdigest() == digest
    other = write_base(tmp_path / 'other.safetensors', seed=1)
    model = MODELS.build(toy_segmentor(other, decode_head=dict(text_bank=str(out))))
    with pytest.raises(UserError, match='text encoder of this base'):
        model.load_base()
    model = MODELS.build(
        toy_segmentor(base, decode_head=dict(text_bank=str(out)), classes=CLASSES[::-1])
    )
    with pytest.raises(UserError, match="class 0 of 19 to be 'bicycle'"):
        model.load_base()


def test_help_shows_what_to_do_with_the_file(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['--help'])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "text_bank='my_classes.safetensors'" in shown and 'classes=bank.embeddings' in shown


def test_progress_tells_the_time_left(capsys, monkeypatch):
    now = iter([0.0, 1.0, 3.0])
    monkeypatch.setattr(encode.time, 'monotonic', lambda: next(now))
    progress = encode.shown_progress(2.0)
    progress(10, 40)
    progress(30, 40)
    assert capsys.readouterr().err == '  30 of 40 texts, 1 s left\n'
