"""Parameters that learn from rows which the other parameters do not learn from.

What chooses between parts of a model (an architecture's logits) must be judged on rows that those parts have not
fitted, or it chooses whatever memorises most.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

import chz
import jax.numpy as jnp

from data.errors import UserError
from modules.base import Batch


@chz.chz
class HeldOut:
    """Every so many rows of a batch teach the chosen parameters alone; the rows between teach the others alone.

    Over several epochs these are the same rows each time only if the order is (`loader.shuffle=False`, with the
    batches of an epoch filling it exactly); in one epoch they always are.
    """

    params: str = chz.field(doc="regex of the parameters that learn from the held-out rows")
    every: int = chz.field(default=4, doc="one row in so many is held out")

    @chz.validate
    def _check(self) -> None:
        if self.every < 2:
            raise ValueError(f"held_out.every is {self.every}; give at least 2, or there is nothing left to learn from")
        try:
            re.compile(self.params)
        except re.error as error:
            raise ValueError(f"held_out.params: {self.params!r} is not a regular expression: {error}") from error

    def chosen(self, paths: Iterable[str], *, tables: Iterable[str]) -> frozenset[str]:
        """The parameters that learn from held-out rows; row-sparse tables cannot."""
        paths = list(paths)
        found = frozenset(path for path in paths if re.search(self.params, path))
        if not found:
            near = get_close_matches(self.params, paths, n=1, cutoff=0.0)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise UserError(f"held_out.params: {self.params!r} matches no parameter{hint}")
        if sparse := sorted(found & set(tables)):
            raise UserError(
                f"held_out.params matches {sparse[0]}, which optimizer.rows keeps row-sparse; leave out one"
            )
        return found

    def split(self, batch: Batch) -> tuple[Batch, Batch]:
        """The rows to learn from and the held-out ones, strided so that each device keeps its share of both."""
        size = next(iter(batch.values())).shape[0]
        if size % self.every:
            raise UserError(f"a batch of {size} does not divide by held_out.every={self.every}; change one of them")
        blocks = {n: a.reshape(size // self.every, self.every, *a.shape[1:]) for n, a in batch.items()}
        learn = {n: jnp.reshape(a[:, 1:], (-1, *a.shape[2:])) for n, a in blocks.items()}
        return learn, {n: a[:, 0] for n, a in blocks.items()}
