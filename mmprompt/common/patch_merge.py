"""Shards of one run -> one store."""

from collections.abc import Sequence
from pathlib import Path

from mmprompt.common.patch_shards import OWN, StorePath, resolve
from mmprompt.common.patch_store import PatchStore, PatchStoreWriter

_BATCH = 256  # images of a transaction


def merge_stores(shards: StorePath | Sequence[StorePath], out: StorePath) -> Path:
    """Copy the shards of one run into one store, which then says what all of them say alike.

    Killed and run again, the copy goes on where it was. The shards stay.

    Args:
        shards: files or patterns, as `PatchStore` takes them; a pattern may match `out`.
        out: the new store.

    Raises:
        UserError: a file is no finished store or is damaged, an image is in two of them, or they
            were made with different settings.
    """
    store = PatchStore(resolve(shards, besides=out))
    meta = {name: value for name, value in store.meta.items() if name not in OWN}
    with PatchStoreWriter(out, meta) as writer:
        keys = [key for key in store.keys() if key not in writer]
        for begin in range(0, len(keys), _BATCH):
            some = keys[begin : begin + _BATCH]
            batch = [(key, *store.packed(key), store.digest(key)) for key in some]
            writer.add_packed(batch)
        return writer.finish()
