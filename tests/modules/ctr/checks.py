"""What must hold for every tower without history."""

import numpy as np
from flax import nnx

from data.features import Categorical, Features
from tests.modules import click_rows as rows


def categorical(name: str, *, role: str = "item", size: int = 7) -> Categorical:
    return Categorical(name=name, role=role, rows=size)


def request_of(features: Features, *, row: int = 2, tiled: bool = False) -> dict[str, np.ndarray]:
    """The candidates of a batch before the user of one row, who stands there once or (tiled) beside each."""
    batch = rows.batch_of(features)
    users = [n for f in features if f.role != "item" for n in (f.name, f"{f.name}/length") if n in batch]
    for name in users:
        one = batch[name][row : row + 1]
        batch[name] = np.repeat(one, len(batch[name]), axis=0) if tiled else one
    return batch


def assert_requests_agree(model: nnx.Module, features: Features) -> None:
    logit = rows.logit(model, request_of(features))
    assert logit.shape == (6,) and logit.std() > 0
    np.testing.assert_allclose(logit, rows.logit(model, request_of(features, tiled=True)), rtol=1e-5, atol=1e-6)


def assert_rows_stand_alone(model: nnx.Module, features: Features) -> None:
    """A batch of one is the row of its batch, and padding changes nothing."""
    batch = rows.batch_of(features)
    logit = rows.logit(model, batch)
    one = rows.logit(model, {n: x[2:3] for n, x in batch.items()})
    np.testing.assert_allclose(one, logit[2:3], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rows.logit(model, rows.repadded(batch, features)), logit)
