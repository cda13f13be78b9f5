"""A linear next-item model in closed form: ridge regression of the items to come on the history, every item decayed.

    B = argmin |X B - Y|^2 + l |B|^2 = (X'X + l I)^-1 X'Y

One row of X and Y per event: X weighs the items up to it by `decay` per newer item, Y the `ahead` items after it by
`fade` per later one. It is what EASE (Steck, WWW 2019) and SLIST (Choi et al., WWW 2021) become for next items. The
catalogue must be small enough for a dense matrix of its items by its items.
"""

import chz
import numpy as np
import scipy.linalg
import scipy.sparse as sp

from data.errors import UserError

LARGEST = 20_000  # items: two dense matrices of 1.6 GB


@chz.chz
class LinearNext:
    decay: float = 0.8
    newest: int = chz.field(default=20, doc="items of a history that it reads")
    ahead: int = chz.field(default=5, doc="items to come that a history is regressed on")
    fade: float = 0.7
    ridge: float = 2000.0

    def weights(self, items: np.ndarray, users: np.ndarray, *, rows: int) -> np.ndarray:
        """B [rows, rows] from items end to end, oldest first, and whose each is."""
        if rows > LARGEST:
            raise UserError(f"a linear model of {rows:,} items needs a dense matrix; leave it out beyond {LARGEST:,}")
        past = self._design(items, users, rows=rows, back=True)
        ahead = self._design(items, users, rows=rows, back=False)
        gram = (past.T @ past).toarray().astype(np.float32)
        gram[np.arange(rows), np.arange(rows)] += self.ridge
        wanted = (past.T @ ahead).toarray().astype(np.float32)
        return scipy.linalg.solve(gram, wanted, assume_a="pos", overwrite_a=True, overwrite_b=True, check_finite=False)

    def _design(self, items: np.ndarray, users: np.ndarray, *, rows: int, back: bool) -> sp.csr_array:
        """[events, rows]: what each item before and at an event weighs, or each item after it."""
        events = np.arange(len(items))
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for apart in range(self.newest) if back else range(1, self.ahead + 1):
            early, late = slice(None, max(len(items) - apart, 0)), slice(apart, None)
            same = users[early] == users[late]
            at, of = (late, early) if back else (early, late)
            weight = self.decay**apart if back else self.fade ** (apart - 1)
            parts.append((np.full(same.sum(), weight, np.float32), events[at][same], items[of][same]))
        weights, rows_of, columns = (np.concatenate(part) for part in zip(*parts, strict=True))
        return sp.coo_array((weights, (rows_of, columns)), shape=(len(items), rows)).tocsr()
