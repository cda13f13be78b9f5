"""What every tower with a history owes."""

import numpy as np
from flax import nnx

from data.features import Features
from tests.modules import click_rows as rows


def request_of(features: Features, *, tiled: bool) -> dict[str, np.ndarray]:
    """One user (row 2) and six candidates; tiled: the user is repeated."""
    batch = rows.batch_of(features)
    for f in features.select(roles=("user", "context")):
        for name in f.arrays():
            batch[name] = np.repeat(batch[name][2:3], 6 if tiled else 1, axis=0)
    return batch


def assert_requests_agree(model: nnx.Module, features: Features) -> None:
    logit = rows.logit(model, request_of(features, tiled=False))
    assert logit.shape == (6,) and np.ptp(logit) > 1e-4
    np.testing.assert_allclose(logit, rows.logit(model, request_of(features, tiled=True)), rtol=1e-4, atol=1e-5)


def assert_only_the_row_matters(make, features: Features, *, train: bool = True) -> None:
    """Neither what stands in padding nor other rows change a row's logit."""
    batch = rows.batch_of(features)
    logit = rows.logit(make(), batch)
    for mode in (False, True) if train else (False,):
        np.testing.assert_array_equal(
            rows.logit(make(), rows.repadded(batch, features), train=mode), rows.logit(make(), batch, train=mode)
        )
    one = rows.logit(make(), {n: x[2:3] for n, x in batch.items()})
    np.testing.assert_allclose(one, logit[2:3], rtol=1e-4, atol=1e-5)
    assert np.isfinite(logit).all()


def reversed_histories(batch: dict[str, np.ndarray], features: Features) -> dict[str, np.ndarray]:
    out = dict(batch)
    for f in features.select(kinds=("sequence",)):
        out[f.name] = batch[f.name].copy()
        for row, length in enumerate(batch[f"{f.name}/length"]):
            out[f.name][row, :length] = batch[f.name][row, :length][::-1]
    return out
