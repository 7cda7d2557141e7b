"""What the command lines share: finding configs, checking options, errors as sentences."""

import argparse
import difflib
import inspect
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.logging import MMLogger

from mmprompt.common.errors import UserError
from mmprompt.common.processes import by_torchrun, first_to_fail, is_first, leave, meet
from mmprompt.registry import CHILDREN

PACKAGE = Path(__file__).resolve().parent.parent
_WORKER_ERROR = re.compile(r'Caught UserError in .*\bUserError: (.*)', re.DOTALL)
_UNKNOWN = re.compile(r"(?:(\w+)\.)?__init__\(\) got an unexpected keyword argument '(\w+)'")
_MISSING = re.compile(r'(?:(\w+)\.)?__init__\(\) missing \d+ required .*?: (.*)')
_UNREGISTERED = re.compile(r'^(\S+) is not in the (\S+) registry')


def configs_folder() -> Path:
    """Return the folder of the configs: beside the package in a checkout, inside it in a wheel."""
    return _shared_folder('configs')


def tools_folder() -> Path:
    """Return the folder of the command lines: beside the package, or inside it in a wheel."""
    return _shared_folder('tools')


def _shared_folder(name: str) -> Path:
    beside = PACKAGE.parent / name
    is_checkout = (PACKAGE.parent / 'setup.py').is_file()
    return beside if is_checkout and beside.is_dir() else PACKAGE / '.mim' / name


def resolve_config(path: str | Path) -> Path:
    """Find a config: as given, else among those that mmprompt ships.

    Args:
        path: a file, or a name below ``configs/`` with or without that prefix and the ``.py``.

    Raises:
        UserError: with names that are near.
    """
    given = Path(path).expanduser()
    folder = configs_folder()
    inside = Path(*given.parts[1:]) if given.parts[:1] == ('configs',) else given
    for candidate in (given, folder / inside):
        for file in (candidate, candidate.with_name(candidate.name + '.py')):
            if file.is_file():
                return file
    known = {str(p.relative_to(folder)): p for p in sorted(folder.rglob('*.py'))}
    known = {k: v for k, v in known.items() if not k.startswith('_base_')}
    near = difflib.get_close_matches(str(inside), list(known), n=3, cutoff=0.5)
    shown = ', '.join(f'configs/{n}' for n in near) or f'the files under {folder}'
    raise UserError(
        f'{path}: expected a config file, found none here and none of that name in {folder}. '
        f'Near: {shown}.'
    )


def find_config(path: str | Path) -> Config:
    """Find and read a config.

    Raises:
        UserError: if there is none, or if it or one of its ``_base_`` files cannot be read.
    """
    file = resolve_config(path)
    try:
        with _without_remarks():
            # Laying the text out anew would take seconds at every start.
            return Config.fromfile(str(file), format_python_code=False)
    except (SyntaxError, NameError, KeyError, OSError, ImportError) as error:
        raise UserError(
            f'{file}: expected a config that mmengine can read, found {type(error).__name__}: '
            f'{error}. Correct the file, or the _base_ file that it names.'
        ) from error


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Leave out the line that mmengine logs for each environment variable in each config."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def apply_options(cfg: Config, options: dict[str, Any] | None) -> None:
    """Put ``--cfg-options`` into a config, each only where the config has that key.

    Raises:
        UserError: naming a path that does not exist (mmengine would create it silently) and those
            that are near.
    """
    for path in options or {}:
        _check_path(cfg, path)
    if options:
        cfg.merge_from_dict(options)


def _check_path(cfg: Config, path: str) -> None:
    node: Any = cfg._cfg_dict
    done: list[str] = []
    for part in path.split('.'):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, (list, tuple)) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            near = difflib.get_close_matches(path, list(_paths(cfg._cfg_dict)), n=3, cutoff=0.5)
            where = '.'.join(done) or 'the config'
            if isinstance(node, dict):
                found = ', '.join(sorted(map(str, node))) or 'no keys'
            elif isinstance(node, (list, tuple)):
                found = f'a list of {len(node)}'
            else:
                found = f'the value {node!r}'
            raise UserError(
                f'--cfg-options {path}: expected a path that exists in the config, found nothing '
                f'at {part!r}; {where} holds {found}. '
                f'Near: {", ".join(near) or "nothing"}. A new key belongs into the config file.'
            )
        done.append(part)


def _paths(node: Any, prefix: str = '') -> Iterator[str]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        path = f'{prefix}{key}'
        yield path
        if isinstance(value, (dict, list, tuple)):
            yield from _paths(value, f'{path}.')


def find_types(node: Any, key: str, prefix: str = '') -> Iterator[tuple[str, str]]:
    """Yield (path, type) of every component of a config that is given the argument ``key``."""
    if isinstance(node, dict):
        if key in node and 'type' in node:
            yield f'{prefix}{key}', str(node['type'])
        for name, value in node.items():
            yield from find_types(value, key, f'{prefix}{name}.')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from find_types(value, key, f'{prefix}{i}.')


def translate(error: BaseException, cfg: Config | None = None) -> UserError | None:
    """Turn an exception that a user's input causes into a `UserError`; None for any other.

    Understands a `UserError` that travelled out of a data worker (torch wraps its traceback around
    it), and a component's unknown name, unknown argument or missing argument.
    """
    text = str(error)
    if isinstance(error, UserError):
        inner = _WORKER_ERROR.search(text)
        text = inner.group(1).strip() if inner else text
        if cfg is not None and cfg.filename:  # the command that mends it, ready to be pasted
            text = text.replace('.py CONFIG ', f'.py {cfg.filename} ')
        return UserError(text)
    tree: Any = cfg._cfg_dict if cfg is not None else {}
    if isinstance(error, TypeError) and (match := _UNKNOWN.search(text)):
        return _unknown_argument(match.group(1), match.group(2), tree)
    if isinstance(error, TypeError) and (match := _MISSING.search(text)):
        return UserError(
            f'{match.group(1) or "component"}: expected the arguments {match.group(2)}, found them '
            f'missing in the config. Add them.'
        )
    if isinstance(error, KeyError) and (match := _UNREGISTERED.search(text.strip('"\''))):
        return _unknown_type(match.group(1), match.group(2), tree)
    return None


def _unknown_argument(owner: str | None, key: str, tree: Any) -> UserError | None:
    given = list(find_types(tree, key))
    # The constructor that complains may be that of a base class of the one that the config names.
    given = [g for g in given if g[1].split('.')[-1] == owner] or given
    if not given:
        return None
    path, name = given[0]
    return UserError(
        f'{path}: expected an argument that {name} takes, found {key!r}'
        f'{_accepted(name, key)}. Correct or remove it.'
    )


def _accepted(name: str, key: str) -> str:
    for registry in CHILDREN:
        try:
            component = registry.get(name)
        except Exception:
            continue
        if inspect.isclass(component):
            known = [p for p in inspect.signature(component).parameters if p != 'kwargs']
            near = difflib.get_close_matches(key, known, n=1)
            hint = f'; near: {near[0]}' if near else ''
            return f'. It takes {", ".join(known)}{hint}'
    return ''


def _unknown_type(name: str, registry: str, tree: Any) -> UserError:
    known = [n for child in CHILDREN for n in (*child.module_dict, *child.parent.module_dict)]
    near = difflib.get_close_matches(name.split('.')[-1], known, n=3, cutoff=0.5)
    return UserError(
        f'type={name!r}: expected a name in the registry {registry}, found none of that name. '
        f'Near: {", ".join(dict.fromkeys(near)) or "nothing"}. Correct it, or add its module to '
        f'custom_imports.'
    )


def run_command_line(body: Callable[[], int | None]) -> int:
    """Run a command line; return its exit status.

    A `UserError`, or what `translate` makes one of, is printed as ``error: …`` with status 2. Any
    other exception is a bug and keeps its traceback, with status 1. Of several processes only the
    first that fails speaks.
    """
    try:
        meet()
        status = body() or 0
        leave()
        return status
    except KeyboardInterrupt:
        if is_first():
            print('interrupted', file=sys.stderr)
        return 130
    except Exception as error:
        known, speaks = translate(error), first_to_fail()
        if known is None:
            if speaks:
                traceback.print_exc()
            return 1
        if speaks:
            print(f'error: {" ".join(str(known).split())}', file=sys.stderr)
        return 2


class OptionsAction(DictAction):
    """mmengine's ``KEY=VALUE`` reader with an error where it has a traceback."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        for pair in values:
            if '=' not in pair:
                parser.error(f'{option_string}: expected KEY=VALUE, found {pair!r}')
        super().__call__(parser, namespace, values, option_string)


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share."""
    parser.add_argument('config', help='config file, or its name below configs/')
    parser.add_argument('--work-dir', help='folder for results (default work_dirs/CONFIG_NAME)')
    parser.add_argument('--seed', type=int, help='seed of everything random')
    parser.add_argument(
        '--launcher',
        choices=['pytorch'],
        help='insist on being started by torchrun, which is otherwise noticed by itself',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        metavar='KEY=VALUE',
        help='override existing config values, for example optim_wrapper.optimizer.lr=0.01',
    )


def read_config(args: argparse.Namespace) -> Config:
    """Read the config of a command line with its options, work directory and seed put in."""
    if args.launcher and not by_torchrun():
        raise UserError(
            '--launcher pytorch: expected processes that torchrun started, found a single one. Use '
            'torchrun --nproc_per_node N tools/train.py CONFIG, or leave --launcher out.'
        )
    cfg = find_config(args.config)
    apply_options(cfg, args.cfg_options)
    if args.work_dir or not cfg.get('work_dir'):
        cfg.work_dir = args.work_dir or str(Path('work_dirs') / Path(args.config).stem)
    randomness = cfg.get('randomness') or {}
    if args.seed is not None or randomness.get('seed') is None:
        cfg.randomness = ConfigDict({**randomness, 'seed': args.seed or 0})
    return cfg
