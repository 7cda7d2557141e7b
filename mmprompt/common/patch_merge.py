"""Several patch stores in one: the shards of a run, or patches of several sources."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmprompt.common.errors import UserError
from mmprompt.common.patch_format import pack, shape
from mmprompt.common.patch_shards import OWN, StorePath, resolve
from mmprompt.common.patch_store import PatchStore, PatchStoreWriter
from mmprompt.common.patches import PatchSet

_BATCH = 256  # images in a transaction; a merge that is killed loses so many, and goes on


def merge_shards(shards: StorePath | Sequence[StorePath], out: StorePath) -> Path:
    """Copy the shards of one run into one store.

    Args:
        shards: files or patterns, as `PatchStore` takes them.
        out: the new store. Killed and run again, the copy goes on where it was.

    Raises:
        UserError: a file is no finished store, an image is in two, or settings differ.
    """
    store = PatchStore(resolve(shards, besides=out))
    meta = {name: value for name, value in store.meta.items() if name not in OWN}
    with PatchStoreWriter(out, meta) as writer:
        keys = [key for key in store.keys() if key not in writer]
        for batch in _batches(keys):
            packed = [store.packed(key) for key in batch]
            writer.add_packed((k, shape(data), data) for k, data in zip(batch, packed))
        return writer.finish()


def join_sources(sources: Sequence[StorePath], out: StorePath) -> Path:
    """Put the patches of several sources of the same images together, image by image.

    An image has the patches of the first source, then those of the second, and so on; a source
    may lack it. The new store's `generator` is `first+second`, and its `settings` hold those of
    all under `sources`.

    Args:
        sources: each a file, or a pattern of the shards of one run.
        out: the new store. Killed and run again, the work goes on where it was.

    Raises:
        UserError: a file is no finished store, or an image has another size in another source.
    """
    stores = [PatchStore(resolve(each, besides=out)) for each in sources]
    if not stores:
        raise UserError('patches of no source at all cannot be joined; name one store or more.')
    with PatchStoreWriter(out, _joined_meta(stores)) as writer:
        keys = sorted({key for store in stores for key in store.keys()})
        for batch in _batches([key for key in keys if key not in writer]):
            joined = [_joined(stores, key) for key in batch]
            writer.add_packed((k, (*p.size, len(p)), pack(p)) for k, p in zip(batch, joined))
        return writer.finish()


def _joined(stores: Sequence[PatchStore], key: str) -> PatchSet:
    try:
        return PatchSet.concat([store.get(key) for store in stores if key in store])
    except UserError as reason:
        raise UserError(
            f'the sources {[str(s.path) for s in stores]} at {key!r}: {reason}'
        ) from None


def _joined_meta(stores: Sequence[PatchStore]) -> dict[str, Any]:
    metas = [store.meta for store in stores]
    made = [{name: meta[name] for name in ('generator', 'settings')} for meta in metas]
    common = {
        name: value
        for name, value in metas[0].items()
        if name not in OWN and all(meta.get(name) == value for meta in metas)
    }
    generator = '+'.join(dict.fromkeys(meta['generator'] for meta in metas))
    return {**common, 'generator': generator, 'settings': {'sources': made}}


def _batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(keys), _BATCH):
        yield keys[begin : begin + _BATCH]
