"""Class embeddings of a config's ``text``, whatever made them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import Names, TextBank
from mmprompt.common.texts import Texts
from mmprompt.foundation.clip import encode_with_clip
from mmprompt.foundation.seem.class_names import make_text_bank
from mmprompt.foundation.seem.name_files import read_name_file
from mmprompt.foundation.seem.tokenizer import flatten_names

__all__ = ['Texts', 'pick_rows', 'read_text']
ENCODER = "model.head.text=dict(clip='ViT-B-32-quickgelu', pretrained='openai')"


def read_text(text: str | Mapping, classes: Names, dim: int) -> Texts:
    """Embeddings of the classes in the dataset's order.

    Args:
        text: one of

            - the path of a text bank (``.safetensors``), whose names are checked, or of a ``.npy``
              array: one row for each class;
            - ``dict(array=FILE.npy, names=…)``: an array with a row for each of these names, from
              which the rows of the classes are taken by name;
            - the arguments of `make_text_bank` or `encode_with_clip`, such as
              ``dict(base='mmprompt://seem-nano_streets')`` or ``dict(clip='ViT-B-32-quickgelu',
              pretrained='openai')``, for a text encoder. It encodes the names of the classes, or
              ``names`` in their place.

            ``names`` is a list, or the path of a file as `tools/encode_class_names.py` reads it.
        classes: C names; a class with several is a list of them. An encoder gives one entry for
            each name, and so does an array by name.
        dim: expected width.

    Raises:
        UserError: there is no such file, or it holds other classes, numbers or widths.
    """
    if not len(classes):
        return Texts(torch.zeros(0, dim))
    if not isinstance(text, Mapping):
        texts = Texts(_rows_of_file(text, classes))
    elif 'array' in text:
        texts = _by_name(text, classes)
    else:
        texts = _encoded({**text, 'names': _names(text.get('names', classes))})
    found = texts.num_classes, texts.entries.shape[1]
    if found != (len(classes), dim):
        raise UserError(
            f'{text}: expected rows of {dim} numbers for each of the {len(classes)} classes, as '
            f'model.head.text_dim and model.classes say, found {found[0]} classes and rows of '
            f'{found[1]}. Give the embeddings of these classes as model.head.text, or correct the '
            f'two.'
        )
    return texts


def _encoded(arguments: Mapping) -> Texts:
    """Of a text encoder."""
    if 'clip' in arguments:
        return encode_with_clip(**arguments)
    names = arguments['names']
    groups, words, class_of = _entries(names)
    rows = make_text_bank(**{**arguments, 'names': words}).embeddings[:-1]
    return Texts(rows.float(), class_of, groups)


def _rows_of_file(file: str | Path, classes: Names) -> Tensor:
    """One row for each class."""
    if Path(file).suffix == '.npy':
        return _read_array(Path(file))
    bank = TextBank.load(file)
    bank.check([name if isinstance(name, str) else name[0] for name in classes])
    return bank.embeddings[:-1].float()


def _by_name(text: Mapping, classes: Names) -> Texts:
    """Of an array whose rows have names."""
    rows = _read_array(Path(text['array']))
    names = text.get('names')
    if names is None:
        raise UserError(
            f'{text["array"]}: expected the names of its {len(rows)} rows, found none. Give '
            f'model.head.text.names, or the path alone for one row a class.'
        )
    known = [group[0] for group in flatten_names(_names(names))]
    if len(set(known)) != len(rows):
        raise UserError(
            f'{text["array"]}: expected one name for each of its {len(rows)} rows, found '
            f'{len(set(known))} different ones. Correct model.head.text.names.'
        )
    mend = f'A text encoder makes rows of any name, best the one that made these: {ENCODER}'
    return pick_rows(rows, known, classes, text['array'], mend)


def pick_rows(
    rows: Tensor, names: Sequence[str], classes: Names, file: str | Path, mend: str
) -> Texts:
    """Embeddings of classes from rows that have names.

    Args:
        rows: (R, D).
        names: R names.
        classes: C classes, each a name or a list of names.
        file: where the rows are from, for the error.
        mend: what to do about a name without a row, for the error.

    Raises:
        UserError: a name has no row.
    """
    groups, words, class_of = _entries(classes)
    places = {name: row for row, name in enumerate(names)}
    lost = [word for word in words if word not in places]
    if lost:
        raise UserError(
            f'{file}: expected a row for each of the classes, found none for '
            f'{", ".join(map(repr, lost[:10]))} among its {len(places)} names. {mend}'
        )
    return Texts(rows[[places[word] for word in words]], class_of, groups)


def _entries(names: Names) -> tuple[list[list[str]], list[str], Tensor]:
    """The names of each class, all of them in a row, and the class of each."""
    groups = flatten_names(names)
    class_of = [c for c, group in enumerate(groups) for _ in group]
    words = [word for group in groups for word in group]
    return groups, words, torch.tensor(class_of, dtype=torch.long)


def _names(names: Names | str | Path) -> Names:
    return read_name_file(names) if isinstance(names, (str, Path)) else names


def _read_array(path: Path) -> Tensor:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f'{path}: expected a .npy array of class embeddings, found none that can be read '
            f'({error}). Correct model.head.text.'
        ) from error
    if rows.ndim != 2 or rows.dtype.kind != 'f' or not np.isfinite(rows).all():
        raise UserError(
            f'{path}: expected rows of finite floating point numbers, found {rows.dtype} of shape '
            f'{rows.shape} or others among them. Make the embeddings again.'
        )
    return torch.from_numpy(rows.astype(np.float32))
