"""How lists are made of vectors, for evaluators of lists: exactly, by a mixture, by an index as it is served."""

from collections.abc import Callable

import chz
import numpy as np

Search = Callable[..., np.ndarray]
"""(queries [q, d], *, own [q, h] | None, k) -> rows of the items [q, k], best first, -1 past the end. Rows `own` (-1:
none) are the users' history, which must not be shown."""


@chz.chz
class Way:
    """How lists are made of vectors."""

    def open(self, items: np.ndarray) -> Search:
        """Prepares for these items; what is done once is no part of a query's time."""
        raise NotImplementedError(f"{type(self).__name__} does not define open")
