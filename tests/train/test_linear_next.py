"""The linear next-item model against its definition, event by event."""

import numpy as np
import pytest

from data.errors import UserError
from train.linear_next import LinearNext

ROWS = 7
USERS = {0: [2, 3, 4, 2, 5], 1: [3, 3, 6], 2: [4], 3: [5, 2, 6, 3]}


def by_hand(config):
    past, ahead = [], []
    for items in USERS.values():
        for at in range(len(items)):
            x, y = np.zeros(ROWS), np.zeros(ROWS)
            for age, item in enumerate(items[at::-1][: config.newest]):
                x[item] += config.decay**age
            for later, item in enumerate(items[at + 1 :][: config.ahead]):
                y[item] += config.fade**later
            past.append(x)
            ahead.append(y)
    past, ahead = np.array(past), np.array(ahead)
    return np.linalg.solve(past.T @ past + config.ridge * np.eye(ROWS), past.T @ ahead)


@pytest.mark.parametrize(("newest", "ahead"), [(1, 1), (2, 3), (50, 50)])
def test_its_weights_are_the_ridge_regression_of_what_comes_on_what_was(newest, ahead):
    """The last case looks further back and ahead than there are events in all."""
    config = LinearNext(newest=newest, ahead=ahead, decay=0.6, fade=0.5, ridge=1.5)
    items = np.concatenate([*USERS.values()])
    users = np.repeat([*USERS], [len(events) for events in USERS.values()])
    found = config.weights(items, users, rows=ROWS)
    np.testing.assert_allclose(found, by_hand(config), rtol=1e-4, atol=1e-6)


def test_a_catalogue_too_large_for_a_dense_matrix_is_refused(monkeypatch):
    monkeypatch.setattr("train.linear_next.LARGEST", 6)
    with pytest.raises(UserError, match="a linear model of 7 items needs a dense matrix; leave it out beyond 6"):
        LinearNext().weights(np.array([2, 3]), np.array([0, 0]), rows=7)
