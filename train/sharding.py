"""Where arrays live: the device mesh, and one list of regex rules for parameters, their moments and row slots."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import chz
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from data.errors import UserError

AXES = ("data", "model")

Rule = tuple[str, tuple[str | None, ...]]

TABLE_ROWS: Rule = (r"(^|/)table(_\d+)?$", ("model", None))
"""Embedding tables split by row."""


@chz.chz
class Mesh:
    """Devices as a grid of data x model, and which parameters split over it."""

    data: int = chz.field(default=-1, doc="devices that share out the batch; -1: all that model leaves")
    model: int = chz.field(default=1, doc="devices that share out the parameters named by rules")
    rules: tuple[Rule, ...] = chz.field(
        default=(TABLE_ROWS,),
        doc="(regex of parameter paths, axis or None of each dimension); the first match wins, others are replicated",
    )

    @chz.validate
    def _check(self) -> None:
        if self.model < 1 or (self.data < 1 and self.data != -1):
            raise ValueError(f"mesh.data is {self.data} and mesh.model {self.model}; give at least 1, or data=-1")
        for regex, axes in self.rules:
            try:
                re.compile(regex)
            except re.error as error:
                raise ValueError(f"mesh.rules: {regex!r} is not a regular expression: {error}") from error
            named = [axis for axis in axes if axis is not None]
            if unknown := [axis for axis in named if axis not in AXES]:
                raise ValueError(f"mesh.rules: {regex!r} names axis {unknown[0]!r}; a mesh has {' and '.join(AXES)}")
            if len(set(named)) < len(named):
                raise ValueError(f"mesh.rules: {regex!r} splits two dimensions over one axis")

    def make(self, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
        devices = jax.devices() if devices is None else list(devices)
        data = len(devices) // self.model if self.data == -1 else self.data
        if data * self.model != len(devices):
            asked = f"mesh.data={self.data} x mesh.model={self.model}"
            raise UserError(f"{len(devices)} devices do not make a mesh of {asked}; choose a product of {len(devices)}")
        return jax.make_mesh((data, self.model), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)

    def shardings(self, state: Any, *, mesh: jax.sharding.Mesh) -> Any:
        """`state` with the placement of each array; only shapes are read, so abstract arrays do."""
        return jax.tree_util.tree_map_with_path(lambda path, leaf: self._place(path, leaf.shape, mesh), state)

    def _place(self, path: tuple, shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> NamedSharding:
        keys = [_key(entry) for entry in path]
        # A row slot is named below its table, a moment ends in its parameter's path: both live with it.
        name = "/".join(keys[:-1] if keys[0] == "rows" and len(keys) > 2 else keys)
        for regex, axes in self.rules:
            if re.search(regex, name):
                return NamedSharding(mesh, _spec(axes, shape, name=name, regex=regex, mesh=mesh))
        return NamedSharding(mesh, P())


def _key(entry: Any) -> str:
    for field in ("key", "name", "idx"):
        if hasattr(entry, field):
            return str(getattr(entry, field))
    return str(entry)


def _spec(axes: tuple[str | None, ...], shape: tuple[int, ...], *, name: str, regex: str, mesh: jax.sharding.Mesh) -> P:
    kept: list[str | None] = []
    # Slots with fewer dimensions (one number per row) follow the leading ones; axes of one device split nothing.
    for size, axis in zip(shape, axes, strict=False):
        parts = 1 if axis is None else mesh.shape[axis]
        if size % parts:
            raise UserError(
                f"{name} of shape {shape} does not split by mesh rule {regex!r} -> {axes}: "
                f"{size} is not a multiple of {parts} ({axis})"
            )
        kept.append(axis if parts > 1 else None)
    while kept and kept[-1] is None:
        kept.pop()
    return P(*kept)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The leading dimension over the data axis."""
    return NamedSharding(mesh, P("data"))


def put_batch(batch: Mapping[str, np.ndarray], *, mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch, as parts of global arrays."""
    sharding, parts = batch_sharding(mesh), mesh.shape["data"]
    processes = jax.process_count()
    for name, array in batch.items():
        rows = len(array) * processes
        if rows % parts:
            raise UserError(
                f"a batch of {rows} rows ({name}) does not divide over mesh.data={parts}; change batch_size"
            )
    if processes == 1:
        return jax.device_put(dict(batch), sharding)
    return {n: jax.make_array_from_process_local_data(sharding, np.asarray(a)) for n, a in batch.items()}


def describe(shardings: Any, *, state: Any) -> str:
    """A line per array that is split: its path, shape, placement and share of one device."""
    lines = []
    pairs = zip(jax.tree_util.tree_flatten_with_path(state)[0], jax.tree.leaves(shardings), strict=True)
    for (path, leaf), sharding in pairs:
        if not sharding.is_fully_replicated:
            share = math.prod(sharding.shard_shape(leaf.shape)) / max(leaf.size, 1)
            lines.append(f"{'/'.join(map(_key, path))}  {leaf.shape}  {sharding.spec}  {share:.0%} a device")
    return "\n".join(lines) or "every array is replicated"
