import pickle

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from torch.utils.data import DataLoader

from mmprompt.apis.cli import (
    apply_options,
    configs_folder,
    find_config,
    resolve_config,
    run_command_line,
    tools_folder,
    translate,
)
from mmprompt.common.errors import UserError


def test_configs_are_found_by_name():
    leaf = sorted((configs_folder() / 'ssprompt').glob('*.py'))[0]
    for name in (leaf, f'configs/ssprompt/{leaf.name}', f'ssprompt/{leaf.stem}'):
        assert resolve_config(name).samefile(leaf)
    with pytest.raises(UserError, match=f'Near: .*{leaf.stem}'):
        resolve_config(f'configs/ssprompt/{leaf.stem}x.py')
    assert (tools_folder() / 'train.py').is_file()


def test_a_file_at_hand_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.py').write_text('a = 1')
    assert find_config('mine.py').a == find_config('mine').a == 1


def test_environment_variables_are_read_without_a_line_for_each(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_DATA', 'here')
    (tmp_path / 'mine.py').write_text("a = '{{$MMPROMPT_DATA:data}}/b'")
    (tmp_path / 'bad.py').write_text('a = (')
    heard, logger = [], MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'handle', lambda record: heard.append(record.getMessage()))
    print_log('before', 'current')
    assert find_config(tmp_path / 'mine.py').a == 'here/b'
    with pytest.raises(UserError):
        find_config(tmp_path / 'bad.py')
    print_log('after', 'current')
    assert heard == ['before', 'after']


@pytest.mark.parametrize('text', ['a = (', "_base_ = 'none.py'", 'a = b'])
def test_an_unreadable_config_is_named(tmp_path, text):
    path = tmp_path / 'bad.py'
    path.write_text(text)
    with pytest.raises(UserError, match=r'bad\.py: expected a config'):
        find_config(path)


def test_options_reach_existing_paths_only():
    cfg = Config(dict(model=dict(head=dict(lr=1, steps=[dict(n=1), dict(n=2)]), tail=None)))
    apply_options(cfg, {'model.head.lr': 2, 'model.head.steps.1.n': 5, 'model.tail': 'x'})
    assert cfg.model.head.lr == 2 and cfg.model.head.steps[1].n == 5 and cfg.model.tail == 'x'
    apply_options(cfg, None)
    for path, words in {
        'model.head.rl': ['model.head holds lr, steps', 'Near: model.head.lr'],
        'model.head.steps.2.n': ["'2'", 'a list of 2'],
        'model.head.steps.-1.n': ["'-1'"],
        'model.head.lr.x': ['the value 2'],
        'modle': ['the config holds', 'Near: model'],
    }.items():
        before = cfg.pretty_text
        with pytest.raises(UserError) as error:
            apply_options(cfg, {'model.head.lr': 2, path: 1})
        assert all(w in str(error.value) for w in [path, *words]) and cfg.pretty_text == before


class Broken:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise UserError('a/b.png: expected this, found that.')


def test_errors_come_out_of_workers_as_they_went_in():
    with pytest.raises(UserError) as error:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert 'DataLoader worker' in str(error.value)
    assert str(translate(error.value)) == 'a/b.png: expected this, found that.'
    assert str(pickle.loads(pickle.dumps(UserError('x')))) == 'x'


def test_only_what_a_user_can_mend_is_translated():
    cfg = Config(dict(model=dict(type='Net', width=1, part=dict(type='Base', depht=2))))
    known = translate(TypeError("Root.__init__() got an unexpected keyword argument 'depht'"), cfg)
    assert 'model.part.depht' in str(known) and 'Base' in str(known)
    known = translate(TypeError("Net.__init__() missing 1 required positional argument: 'x'"), cfg)
    assert "'x'" in str(known)
    assert (
        translate(TypeError("Net.__init__() got an unexpected keyword argument 'x'"), cfg) is None
    )
    assert translate(TypeError('unsupported operand'), cfg) is None
    assert translate(KeyError('x'), cfg) is None
    assert translate(ValueError('x'), cfg) is None
    manifest = Config(dict(), filename=__file__)
    text = translate(UserError('Make it: make.py CONFIG --out x'), manifest)
    assert str(text) == f'Make it: make.py {__file__} --out x'


@pytest.mark.parametrize(
    'error, code, printed',
    [
        (None, 0, ''),
        (UserError('a\n  b'), 2, 'error: a b\n'),
        (KeyboardInterrupt(), 130, 'interrupted\n'),
        (RuntimeError('a bug'), 1, 'RuntimeError: a bug\n'),
    ],
)
def test_exit_status(error, code, printed, capsys):
    def body():
        if error is not None:
            raise error

    assert run_command_line(body) == code
    assert capsys.readouterr().err.endswith(printed)
