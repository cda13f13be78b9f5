"""Wide & Deep: equation 3 in numpy."""

import numpy as np
import pytest
from flax import nnx

from modules.ctr.dnn import DNN
from modules.ctr.wide_deep import WideDeep
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows

FEATURES = rows.features(rows.USER, rows.ITEM, rows.CATEGORY)
DEEP = DNN(dim=3, mlp=MLP(widths=(6,)))


def test_the_logit_is_the_wide_and_the_deep_one():
    config = WideDeep(deep=DEEP, crosses=(("user", "category"), ("user", "item")), cross_rows=64)
    model = config.make(FEATURES, rngs=nnx.Rngs(0))
    model.table_cross[...] = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
    batch = rows.batch_of(FEATURES)
    wide = rows.plain_fields(model.wide.embed, batch, FEATURES)
    deep = np.concatenate(list(rows.plain_fields(model.deep.embed, batch, FEATURES).values()), axis=-1)
    expected = sum(w[:, 0] for w in wide.values()) + rows.tower(deep, model.deep.mlp)[:, 0]
    crossed = np.asarray(model.cross_products(rows.on_device(batch)))
    assert crossed.shape == (6,) and np.abs(crossed).min() > 0
    np.testing.assert_allclose(rows.logit(model, batch), expected + crossed, rtol=1e-4, atol=1e-5)


def test_a_cross_has_a_weight_of_its_own_for_each_pair_of_values():
    config = WideDeep(deep=DEEP, crosses=(("user", "item"),), cross_rows=2**14)
    model = config.make(FEATURES, rngs=nnx.Rngs(0))
    model.table_cross[...] = np.arange(2**14, dtype=np.float32)[:, None]
    user, item = (g.ravel().astype(np.int32) for g in np.meshgrid(np.arange(9), np.arange(11)))
    weights = np.asarray(model.cross_products(rows.on_device({"user": user, "item": item})))
    assert len(np.unique(weights)) >= 97


def test_only_categorical_features_cross():
    with pytest.raises(ValueError, match="'price' is numeric"):
        WideDeep(crosses=(("user", "price"),)).make(rows.features(rows.USER, rows.PRICE), rngs=nnx.Rngs(0))
    with pytest.raises(KeyError, match="did you mean 'user'"):
        WideDeep(crosses=(("usr", "item"),)).make(FEATURES, rngs=nnx.Rngs(0))
