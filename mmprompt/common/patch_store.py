"""A store of patches: one SQLite file with the `PatchSet` of every image of a split, or of a shard.

It is written image by image, each in one transaction, under the name `STORE.part`, which becomes
`STORE` when all is there. A finished store never changes, so that any number of processes reads it
without a lock.
"""

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn

from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import (
    DIGESTS_SINCE,
    FORMAT,
    MAKE,
    SCHEMA,
    UPGRADE,
    DamagedError,
    check_header,
    meta_rows,
    pack,
    read_meta,
    read_only,
    refuse_file,
    shape,
    unpack,
)
from mmprompt.common.patch_shards import (
    StorePath,
    common_meta,
    complete_meta,
    differences,
    index,
    resolve,
)
from mmprompt.common.patches import PatchSet


class _Opened(NamedTuple):
    paths: tuple[Path, ...]
    meta: dict[str, Any]
    formats: tuple[int, ...]  # of each file
    shard_of: dict[str, int] | None  # None with one file, which is asked itself


class PatchStore:
    """Patches of many images, read by the key of the image. Read-only.

    No file is touched before the first question, every process and thread opens the files for
    itself once, and a store can be pickled: build it anywhere, before workers fork or spawn.

    Args:
        path: a file, a pattern of files (shards) as `train.*.patches`, or a sequence of those. An
            image is in one shard only, and all were made with the same settings.

    Raises:
        UserError: (at the first question) a file is missing, unfinished, cut, foreign, or newer
            than this program; or the shards do not go together.
    """

    def __init__(self, path: StorePath | Sequence[StorePath]):
        self.path = path
        self._opened: _Opened | None = None
        self._local = threading.local()

    def __getstate__(self) -> dict:
        return {'path': self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state['path'])

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.path!r})'

    @property
    def meta(self) -> dict[str, Any]:
        """Of all shards alike: `generator`, `settings`, `settings_hash`, `format`, and others."""
        return self._open().meta

    def get(self, key: str) -> PatchSet:
        """The patches of an image.

        Raises:
            UserError: there are none, or the file is damaged there.
        """
        return unpack(self.packed(key)[1])

    def packed(self, key: str) -> tuple[tuple[int, int, int], bytes]:
        """The same unread: (H, W, N), and the bytes of `patch_format`.

        Raises:
            UserError: there are none, or the file is damaged there.
        """
        row = self._row('data', key)
        if row is None:
            self._refuse_key(key)
        try:
            return shape(row[0]), row[0]
        except DamagedError as reason:
            self._refuse_damage(key, reason)

    def digest(self, key: str) -> int | None:
        """`image_digest` of the image that the patches are of; None if the store does not know it.

        Raises:
            UserError: the file is damaged there.
        """
        opened = self._open()
        shard = 0 if opened.shard_of is None else opened.shard_of.get(key)
        if shard is None or opened.formats[shard] < DIGESTS_SINCE:
            return None
        return (self._row('image', key) or (None,))[0]

    def find(self, img_path: StorePath) -> str:
        """The key of an image file: the longest end of its path that is a key.

        Only whole names of folders count: `val/a/1.png` has the ends `val/a/1.png`, `a/1.png` and
        `1.png`.

        Raises:
            UserError: no end of the path is a key.
        """
        parts = PurePosixPath(os.fspath(img_path).replace('\\', '/')).parts
        ends = ['/'.join(parts[i:]) for i in range(len(parts)) if parts[i] != '/']
        for end in ends:
            if end in self:
                return end
        self._refuse_key(os.fspath(img_path))

    def __contains__(self, key: object) -> bool:
        return self._row('1', key) is not None

    def __len__(self) -> int:
        return sum(count for (count,) in self._rows('SELECT COUNT(*) FROM patches'))

    def keys(self) -> list[str]:
        """All keys, sorted."""
        return sorted(key for (key,) in self._rows('SELECT key FROM patches'))

    def _row(self, column: str, key: object) -> tuple | None:
        shards = self._open().shard_of
        shard = 0 if shards is None else shards.get(key)
        if shard is None:
            return None
        query = f'SELECT {column} FROM patches WHERE key = ?'
        try:
            return self._connection(shard).execute(query, (key,)).fetchone()
        except sqlite3.DatabaseError as reason:
            self._refuse_damage(key, reason)

    def _rows(self, query: str) -> Iterable[tuple]:
        for shard, path in enumerate(self._open().paths):
            try:
                yield from self._connection(shard).execute(query).fetchall()
            except sqlite3.DatabaseError as reason:
                refuse_file(path, f'cannot be read ({reason})')

    def _connection(self, shard: int) -> sqlite3.Connection:
        local = self._local
        if getattr(local, 'process', None) != os.getpid():  # none survives a fork
            local.process, local.connections = os.getpid(), {}
        if shard not in local.connections:
            local.connections[shard] = read_only(self._open().paths[shard])
        return local.connections[shard]

    def _open(self) -> _Opened:
        if self._opened is None:
            paths = resolve(self.path)
            metas = [read_meta(path) for path in paths]
            shards = index(paths) if len(paths) > 1 else None
            formats = tuple(meta['format'] for meta in metas)
            self._opened = _Opened(paths, common_meta(paths, metas), formats, shards)
        return self._opened

    def _name(self) -> str:
        paths = self._open().paths
        return str(paths[0]) if len(paths) == 1 else f'the store of {len(paths)} files {self.path}'

    def _refuse_key(self, key: str) -> NoReturn:
        some = next(iter(self._rows('SELECT key FROM patches LIMIT 1')), ('none',))[0]
        raise UserError(
            f'{self._name()} has no patches of {key!r}; it holds {len(self)} images, one is '
            f'{some!r}. Keys are image paths relative to the image folder: make the store of this '
            f'dataset and split with {MAKE}.'
        )

    def _refuse_damage(self, key: str, reason: Exception) -> NoReturn:
        opened = self._open()
        path = opened.paths[0 if opened.shard_of is None else opened.shard_of[key]]
        refuse_file(path, f'is damaged at {key!r} ({reason})')


class PatchStoreWriter:
    """Writes a store, image by image; killed at any moment, it goes on where it was.

    Args:
        path: of the store. Until `finish` it is called `path.part`.
        meta: `generator` (a name), `settings` (a dict of all that decides what patches come out)
            and whatever else belongs to the store (dataset, split, shard). Of what JSON can say.

    If the finished store is there already with the same meta data, `finished` is true, all its
    keys are `in` the writer, and `finish` does nothing. `reopen` writes to it all the same.

    Raises:
        UserError: the file there has other meta data, is no store, or is being written.
    """

    def __init__(self, path: StorePath, meta: Mapping[str, Any]):
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + '.part')
        self.meta = complete_meta(meta)
        self.finished = self.path.exists()
        self._replaces = False
        if self.finished:
            found = read_meta(self.path)
            self._same_meta(self.path, found)
            self._knows_digests = found['format'] >= DIGESTS_SINCE
            self._connection = read_only(self.path)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._open_part()

    def _open_part(self) -> None:
        self._knows_digests = True
        self._connection = sqlite3.connect(self.part, isolation_level=None, timeout=0.5)
        try:
            self._begin()
        except sqlite3.DatabaseError as reason:
            self.close()
            locked = 'locked' in str(reason)
            raise UserError(
                f'{self.part} cannot be written: '
                + (
                    'another process is writing it. Wait for it, or give every process its own '
                    'shard.'
                    if locked
                    else f'expected an unfinished patch store, found something else ({reason}). '
                    f'Delete it and {MAKE} starts again.'
                )
            ) from reason
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        execute = self._connection.execute
        execute('PRAGMA locking_mode = EXCLUSIVE')  # held until closed, and by a killed process not
        execute('BEGIN EXCLUSIVE')  # rolls back what a killed process left half written
        if execute('SELECT COUNT(*) FROM sqlite_master').fetchone()[0]:
            check_header(self.part)
            found = meta_rows(self._connection)
            self._same_meta(self.part, found)
            if found['format'] < FORMAT:
                for statement in UPGRADE:
                    execute(statement)
                self._put_meta({'format': FORMAT})
        else:
            for statement in SCHEMA:
                execute(statement)
            self._put_meta(self.meta)
        execute('COMMIT')

    def __enter__(self) -> 'PatchStoreWriter':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __contains__(self, key: object) -> bool:
        query = 'SELECT 1 FROM patches WHERE key = ?'
        return self._connection.execute(query, (key,)).fetchone() is not None

    def __len__(self) -> int:
        return self._connection.execute('SELECT COUNT(*) FROM patches').fetchone()[0]

    def digest(self, key: str) -> int | None:
        """`image_digest` of the image that the patches are of; None if the store does not know."""
        if not self._knows_digests:
            return None
        query = 'SELECT image FROM patches WHERE key = ?'
        return (self._connection.execute(query, (key,)).fetchone() or (None,))[0]

    def add(self, key: str, patches: PatchSet, digest: int | None = None) -> None:
        """Write the patches of an image. When this returns they are there.

        Args:
            key: the image's path relative to the image folder, with `/` between folders.
            patches: of this image; none at all is fine.
            digest: `image_digest` of its file, if that is known.

        Raises:
            UserError: the key is there already or is no relative path; or the disk is full.
        """
        self.add_packed([(key, (*patches.size, len(patches)), pack(patches), digest)])

    def add_packed(
        self, images: Iterable[tuple[str, tuple[int, int, int], bytes, int | None]]
    ) -> None:
        """Write several images in one transaction: key, (H, W, N), bytes of `pack`, digest."""
        if self.finished:
            raise UserError(f'{self.path} is finished: write to another name and merge the two.')
        rows = [(_checked_key(key), *shape, *rest) for key, shape, *rest in images]
        key = rows[0][0] if len(rows) == 1 else f'one of {len(rows)} images'
        connection = self._connection
        try:
            connection.execute('BEGIN')
            connection.executemany('INSERT INTO patches VALUES (?, ?, ?, ?, ?, ?)', rows)
            connection.execute('COMMIT')
        except sqlite3.IntegrityError as reason:
            connection.execute('ROLLBACK')
            raise UserError(f'{self.part} has patches of {key!r} already.') from reason
        except sqlite3.OperationalError as reason:
            if connection.in_transaction:
                connection.execute('ROLLBACK')
            raise UserError(
                f'{self.part} cannot take the patches of {key!r}: {reason}. What it holds is safe: '
                'make room and run the same command again.'
            ) from reason

    def reopen(self) -> None:
        """Write to a finished store: to a copy, which takes its place when that is finished.

        If such a copy was left by a process that was killed, it is gone on with.
        """
        self.close()
        if not self.part.exists():
            copy = self.part.with_name(f'{self.part.name}.{os.getpid()}')
            shutil.copyfile(self.path, copy)
            os.replace(copy, self.part)
        self._open_part()
        self._connection.execute("DELETE FROM meta WHERE name = 'images'")
        self.finished, self._replaces = False, True

    def forget(self, keys: Iterable[str]) -> None:
        """Take images out again, all of them or none."""
        execute = self._connection.execute
        execute('BEGIN')
        for key in keys:
            execute('DELETE FROM patches WHERE key = ?', (key,))
        execute('COMMIT')

    def finish(self) -> Path:
        """Give the file its name; from here on it can be read, and no longer be written."""
        if self.finished:
            return self.path
        self._connection.execute('BEGIN')
        self._put_meta({'images': len(self)})
        self._connection.execute('COMMIT')
        self.close()
        if self.path.exists() and not self._replaces:
            raise UserError(f'{self.path} has been made by somebody else; {self.part} is left.')
        os.replace(self.part, self.path)
        self.finished = True
        return self.path

    def close(self) -> None:
        """Let the file go, unfinished if it is so; what was added stays."""
        self._connection.close()

    def _put_meta(self, values: Mapping[str, Any]) -> None:
        rows = [(name, json.dumps(value)) for name, value in values.items()]
        self._connection.executemany('INSERT OR REPLACE INTO meta VALUES (?, ?)', rows)

    def _same_meta(self, path: Path, found: dict[str, Any]) -> None:
        there, here = (
            {name: value for name, value in meta.items() if name not in ('images', 'format')}
            for meta in (found, self.meta)
        )
        if there != here:
            raise UserError(
                f'{path} was begun with something else: {"; ".join(differences(there, here))}'
                '. Run the command that it was begun with, or write to another file.'
            )


def _checked_key(key: str) -> str:
    if not key or '\\' in key or str(PurePosixPath(key)) != key or key.startswith(('/', '..')):
        raise UserError(
            f'{key!r} cannot be the key of an image; expected its path relative to the image '
            'folder, as in aachen/000001.png.'
        )
    return key
