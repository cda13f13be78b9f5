"""Arrays into Orbax's files and out of them; no other module of ours knows its options."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from data.errors import UserError
from train.rowwise import OWED, settle

WEIGHTS = ("params", "stats", "ema")


def writer() -> ocp.PyTreeCheckpointHandler:
    """Orbax cuts each replicated array into one slice a device and compiles every cut: a gain between hosts alone."""
    types = ocp.type_handlers
    arrays = types.ArrayHandler(use_replica_parallel=jax.process_count() > 1)
    registry = types.create_type_handler_registry((jax.Array, arrays), (np.ndarray, types.NumpyHandler()))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


def read_weights(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Params, stats and averages on the host, no decay owed; what else the state holds is not read."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        tree = orbax.metadata(folder / "state").item_metadata.tree
        wanted = {name: tree.get(name) or {} for name in WEIGHTS}
        wanted["rows"] = {path: owed for path, slots in (tree.get("rows") or {}).items() if (owed := _owed(slots))}
        filled = {name: part for name, part in wanted.items() if part}
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), filled)
        arrays = orbax.restore(
            folder / "state", args=ocp.args.PyTreeRestore(item=filled, restore_args=how, partial_restore=True)
        )
    for path, slots in arrays.get("rows", {}).items():
        # By the program's own arithmetic, so that what is served is to the bit what was evaluated.
        arrays["params"][path] = np.asarray(settle(arrays["params"][path], slots))
    return {name: arrays.get(name, {}) for name in WEIGHTS}


def _owed(slots: Mapping[str, Any]) -> dict[str, Any]:
    return {name: slots[name] for name in OWED if name in slots}


def read_part(folder: Path, *, abstract: Any) -> Any:
    """What `abstract` names of the state, with its dtypes and placement; empty dicts stay empty."""
    filled = {name: part for name, part in abstract.items() if jax.tree.leaves(part)}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        how = ocp.checkpoint_utils.construct_restore_args(filled)
        args = ocp.args.PyTreeRestore(item=filled, restore_args=how, partial_restore=True)
        return {**abstract, **orbax.restore(folder / "state", args=args)}


def read_state(folder: Path, *, abstract_state: Any) -> Any:
    """The state with the structure, dtypes and placement of `abstract_state`, wherever it was saved."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        _check_fit(orbax.metadata(folder / "state").item_metadata.tree, abstract_state=abstract_state, folder=folder)
        how = ocp.checkpoint_utils.construct_restore_args(abstract_state)
        return orbax.restore(folder / "state", args=ocp.args.PyTreeRestore(abstract_state, restore_args=how))


def _check_fit(saved: Any, *, abstract_state: Any, folder: Path) -> None:
    here = {_path(path): tuple(leaf.shape) for path, leaf in jax.tree.leaves_with_path(abstract_state)}
    there = {_path(path): tuple(leaf.shape) for path, leaf in jax.tree.leaves_with_path(saved)}
    wrong = [
        f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{folder} does not fit this experiment: {'; '.join(wrong[:3])}{more}; use init_from instead")


def _path(keys: tuple) -> str:
    """A field of a named tuple and a key of the dict that it is stored as read the same."""
    return "/".join(str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in keys)


class _OrbaxFilter(logging.Filter):
    """Orbax logs each error with its traceback before it raises it to us; the user needs our one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname


_FILTER = _OrbaxFilter()


def quiet() -> None:
    logging.getLogger("absl").addFilter(_FILTER)  # once: a second add of the same filter does nothing


class LateWrites:
    """Keeps quiet about writes that end after one of the same save has failed.

    Orbax closes its event loop at the first failure, and each of the others then prints a traceback of its own.
    """

    def __init__(self) -> None:
        self._before = sys.unraisablehook
        sys.unraisablehook = self._hook

    def _hook(self, what: Any) -> None:
        if not (what.exc_type is RuntimeError and str(what.exc_value) == "Event loop is closed"):
            self._before(what)

    def close(self) -> None:
        if sys.unraisablehook == self._hook:
            sys.unraisablehook = self._before
