"""The fused embedding against plain look-ups, one field at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Features, Image
from modules.layers.embedding import Embedding, FeatureEmbedding, hash_ids
from tests.modules import click_rows as rows

FEATURES = rows.features()


def build(features: Features = FEATURES, *, dim: int = 4, **options) -> FeatureEmbedding:
    return FeatureEmbedding(features, dim=dim, options=Embedding(std=1.0, **options), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("widths", [{}, {"user": 2, "history": 3, "content": 5, "tags": 3}])
def test_every_kind_equals_a_plain_look_up(widths):
    embed, batch = build(widths=widths), rows.batch_of(FEATURES)
    expected = rows.plain_vectors(embed, batch, FEATURES)
    actual = embed(rows.on_device(batch))
    assert list(actual) == [f.name for f in FEATURES]
    for name, x in actual.items():
        np.testing.assert_allclose(x, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    pooled = rows.plain_fields(embed, batch, FEATURES)
    np.testing.assert_allclose(
        embed.flat(rows.on_device(batch)), np.concatenate(list(pooled.values()), -1), rtol=1e-5, atol=1e-6
    )
    assert embed.width() == sum(x.shape[-1] for x in pooled.values())
    if not widths:
        fields = embed.fields(rows.on_device(batch))
        np.testing.assert_allclose(fields, np.stack(list(pooled.values()), 1), rtol=1e-5, atol=1e-6)


def test_bags_can_be_summed():
    batch = rows.batch_of(FEATURES)
    mean, total = (build(pool=how)(rows.on_device(batch), names=("tags",))["tags"] for how in ("mean", "sum"))
    np.testing.assert_allclose(total, mean * np.maximum(batch["tags/length"], 1)[:, None], rtol=1e-5)


def test_one_gather_and_one_padded_table_per_width():
    embed, batch = build(), rows.on_device(rows.batch_of(FEATURES))
    assert embed.table_4.shape == (40, 4)  # 9 + 11 + 5 + 7 + 6 rows, rounded up to a multiple of 8
    text = str(jax.make_jaxpr(lambda b: embed(b))(batch))
    assert text.count("gather[") == 1


def test_padding_is_zero_and_without_gradient():
    embed, batch = build(), rows.batch_of(FEATURES)
    out, other = (embed(rows.on_device(b)) for b in (batch, rows.repadded(batch, FEATURES)))
    for name, x in out.items():
        np.testing.assert_array_equal(x, other[name], err_msg=name)
    graph, state = nnx.split(embed)
    only_padding = rows.on_device({**batch, "history/length": batch["history/length"] * 0})
    grads = jax.grad(lambda s: nnx.merge(graph, s)(only_padding, names=("history",))["history"].sum())
    assert not np.any(grads(state)["table_4"][...])


def test_shared_tables_share_rows_and_unknown_ids_stay_in_their_table():
    embed, batch = build(), rows.on_device(rows.batch_of(FEATURES))
    batch["item"] = batch["history"][:, 0]
    batch["history/length"] = jnp.full((6,), rows.LENGTH)
    out = embed(batch)
    np.testing.assert_array_equal(out["item"], out["history"][:, 0])
    np.testing.assert_array_equal(out["item"], embed.look_up(batch["item"], name="history"))
    for wrong in (-1, rows.ITEM.rows, 10**6):
        ids = jnp.asarray([wrong, 1])
        strange, unknown = embed.look_up(ids, name="item")
        np.testing.assert_array_equal(strange, unknown)


def test_hashing_is_deterministic_keeps_reserved_ids_and_differs_by_table():
    ids = jnp.arange(3000)
    hashed = np.asarray(hash_ids(ids, salt=1, buckets=102))
    np.testing.assert_array_equal(hashed, hash_ids(ids, salt=1, buckets=102))
    # Pinned: a checkpoint must find the same rows in every process and release.
    assert hashed[:6].tolist() == [0, 1, 89, 80, 87, 95]
    counts = np.bincount(hashed[2:], minlength=102)[2:]
    assert len(counts) == 100 and counts.min() > 10 and counts.max() < 60
    assert (hashed[2:] == np.asarray(hash_ids(ids, salt=2, buckets=102))[2:]).mean() < 0.03


def test_hashed_tables_are_small_and_shared():
    embed, batch = build(hash_buckets={"history": 5}), rows.on_device(rows.batch_of(FEATURES))
    assert embed.table_4.shape[0] == 32  # 9 + 5 + 5 + 7 + 6
    batch["item"] = batch["history"][:, 0]
    batch["history/length"] = jnp.full((6,), rows.LENGTH)
    out = embed(batch)
    np.testing.assert_array_equal(out["item"], out["history"][:, 0])
    assert len(np.unique(np.asarray(embed.look_up(jnp.arange(11), name="item")), axis=0)) <= 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": {"usr": 2}}, "did you mean 'user'"),
        ({"hash_buckets": {"histry": 5}}, "did you mean 'history'"),
        ({"widths": {"item": 2, "history": 3}}, "given both 2 and 3"),
    ],
)
def test_wrong_options_name_the_right_ones(options, message):
    with pytest.raises((KeyError, ValueError), match=message):
        build(**options)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="at least 3"):
        Embedding(hash_buckets={"user": 2})
    with pytest.raises(ValueError, match="at least 1"):
        Embedding(widths={"user": 0})
    with pytest.raises(ValueError, match="do not stack"):
        build(widths={"user": 2}).fields(rows.on_device(rows.batch_of(FEATURES)))
    with pytest.raises(ValueError, match="encode it first"):
        build(rows.features(rows.USER, Image(name="page", height=4, width=4)))
    with pytest.raises(ValueError, match="no features"):
        build(Features(all=(rows.CLICK,)))
    with pytest.raises(KeyError, match="did you mean 'user'"):
        build().slot("usr")
    with pytest.raises(ValueError, match="more than int32"):
        nnx.eval_shape(lambda: build(Features(all=(Categorical(name="big", rows=2**31 - 2),)), dim=1))
