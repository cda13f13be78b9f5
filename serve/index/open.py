"""Opens what `save` wrote. A live index is opened for reading unless `write` is asked for.

For reading, its log is read too and updates are refused; for writing, updates are logged, and other processes that
want to write are kept out. `mesh` puts the vectors of an exact index on devices.
"""

from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from data.errors import UserError
from data.manifest import read_json
from serve.files import Lock
from serve.index import store
from serve.index.devices import OnDevices
from serve.index.exact import Exact
from serve.index.fixed import FixedIndex
from serve.index.journal import Journal
from serve.index.live import LiveIndex
from serve.index.plan import Made, Plan
from serve.index.updates import Update
from serve.versions import resolve


def open_index(
    path: Path,
    *,
    model: str | None = None,
    write: bool = False,
    sync: bool = False,
    mesh: Mesh | None = None,
    merge_by_itself: bool = True,
) -> FixedIndex | LiveIndex:
    """Refuses a damaged folder, and vectors of another model version than `model`, whose scores would mean nothing."""
    lock = Lock(path / store.LOCK) if write and path.is_dir() else None
    try:
        for _ in range(3):
            before = store.latest(path)
            try:
                return _open(path, model=model, lock=lock, sync=sync, mesh=mesh, merge_by_itself=merge_by_itself)
            except UserError:
                # Another process has put the next version in place and removed what this one was reading.
                if store.latest(path) == before:
                    raise
        raise UserError(f"{path} changes faster than it can be opened; try again")
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def is_live(path: Path) -> bool:
    """Whether it may be opened with `write`; its files are not looked at."""
    return bool(read_json(resolve(path, again=store.AGAIN) / store.ABOUT).get("kind") == "live")


def _open(
    path: Path, *, model: str | None, lock: Lock | None, sync: bool, mesh: Mesh | None, merge_by_itself: bool
) -> FixedIndex | LiveIndex:
    version = store.Version(path, model=model)
    about, ids, engine = version.about, version.ids, version.engine()
    attributes = version.attributes(count=len(ids))
    made = {name: about[name] for name in ("engine", "settings", "recall", "why")}
    if about["kind"] == "fixed":
        if mesh is not None and isinstance(engine, Exact):
            engine = OnDevices(engine.vectors, mesh=mesh, recall=about["settings"].get("recall", 1.0))
        if lock is not None:
            raise UserError(f"{path} stays as it was built; build it with --engine live to change it")
        return FixedIndex(
            engine, ids=ids, attributes=attributes, metric=about["metric"], model=version.model, made=made
        )
    plan = Plan(**about["plan"], queries=version.array(store.QUERIES))
    index = LiveIndex(
        Made(engine, made),
        ids=ids,
        attributes=attributes,
        plan=plan,
        metric=about["metric"],
        model=version.model,
        merge_by_itself=merge_by_itself,
    )
    new_ids = _array(version, store.NEW_IDS)
    new = version.attributes(store.NEW_ATTRIBUTES, count=len(new_ids))
    values = {name: column.decoded(np.arange(len(new_ids))) for name, column in new.columns.items()}
    update = Update(new_ids, _array(version, store.NEW_VECTORS), values)
    index.restore(version=about["version"], dead=_array(version, store.DEAD), new=update)
    index.follow(Journal(path, lineage=about["lineage"], lock=lock, sync=sync))
    return index


def _array(version: store.Version, file: str) -> np.ndarray:
    array = version.array(file)
    if array is None:
        raise UserError(f"{version.path / file} is missing; build the index again")
    return array
