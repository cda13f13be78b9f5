"""One table for all features against plain gathers, and the hashes that keep features apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Features
from modules.ctr.fm import FM
from modules.layers.embedding import Embedding, FeatureEmbedding, _rows_of
from modules.layers.multiplex import Multiplex
from tests.modules import click_rows as rows

FEATURES = rows.features()
ROWS = 12


def build(features: Features = FEATURES, *, dim: int = 6, chunk: int | None = 3, salt="feature", **options):
    multiplex = Multiplex(rows=ROWS, chunk=chunk, salt=salt)
    return FeatureEmbedding(
        features, dim=dim, options=Embedding(std=1.0, multiplex=multiplex, **options), rngs=nnx.Rngs(0)
    )


def mixed(x: int) -> int:
    """The stored hash, on plain integers."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B % 2**32
    x = (x ^ (x >> 13)) * 0xC2B2AE35 % 2**32
    return x ^ (x >> 16)


def row(i: int, salt: int, count: int = ROWS) -> int:
    return i if i < 2 else 2 + mixed(i ^ salt) % (count - 2)


@pytest.mark.parametrize("widths", [{}, {"user": 3, "history": 9}])
def test_a_vector_is_the_rows_of_its_chunks_side_by_side(widths):
    embed, batch = build(widths=widths), rows.batch_of(FEATURES)
    table = np.asarray(embed.table_3[...])
    assert table.shape == (16, 3)  # 12 rows, rounded up to a multiple of 8
    out = embed(rows.on_device(batch))
    for f in FEATURES:
        if not f.size or (f.max_len and f.kind != "sequence"):
            continue
        salts = embed.slot(f.name).salts
        width = widths.get(f.name, widths.get({"item": "history"}.get(f.name, ""), 6))
        assert len(salts) == width // 3 and out[f.name].shape[-1] == width
        for index in np.ndindex(batch[f.name].shape):
            inside = not f.max_len or index[1] < batch[f"{f.name}/length"][index[0]]
            wanted = np.concatenate([table[row(int(batch[f.name][index]), s)] for s in salts]) * inside
            np.testing.assert_array_equal(out[f.name][index], wanted, err_msg=f.name)


def test_all_looked_up_features_cost_one_gather_and_one_table():
    embed, batch = build(widths={"user": 3, "history": 9}), rows.on_device(rows.batch_of(FEATURES))
    tables = [path for path, _ in nnx.to_flat_state(nnx.state(embed, nnx.Param)) if "table" in str(path[-1])]
    assert [str(t[-1]) for t in tables] == ["table_3"]
    assert str(jax.make_jaxpr(lambda b: embed(b))(batch)).count("gather[") == 1


def test_a_history_shares_rows_with_its_item_and_other_features_do_not():
    embed, batch = build(), rows.on_device(rows.batch_of(FEATURES))
    ids = jnp.arange(11)
    np.testing.assert_array_equal(embed.look_up(ids, name="item"), embed.look_up(ids, name="history"))
    batch["item"] = batch["history"][:, 0]
    batch["history/length"] = jnp.full((6,), rows.LENGTH)
    out = embed(batch)
    np.testing.assert_array_equal(out["item"], out["history"][:, 0])
    for reserved in (0, 1):
        np.testing.assert_array_equal(
            embed.look_up(jnp.asarray(reserved), name="item"), embed.look_up(jnp.asarray(reserved), name="user")
        )
    for wrong in (-1, 11, 10**6):
        strange, unknown = embed.look_up(jnp.asarray([wrong, 1]), name="item")
        np.testing.assert_array_equal(strange, unknown)


BIG = Features(all=tuple(Categorical(name=n, rows=1500) for n in ("a", "b")))


def collisions(embed: FeatureEmbedding, name: str, chunk: int) -> set[tuple[int, int]]:
    at = np.asarray(_rows_of(jnp.arange(2, 302), embed.slot(name)))[:, chunk]
    return {(i, j) for i in range(300) for j in range(i) if at[i] == at[j]}


def test_salts_of_features_and_chunks_are_independent():
    options = Embedding(multiplex=Multiplex(rows=402, chunk=2))
    embed = FeatureEmbedding(BIG, dim=4, options=options, rngs=nnx.Rngs(0))
    assert len({s for n in "ab" for s in embed.slot(n).salts}) == 4
    sets = [collisions(embed, name, chunk) for name in "ab" for chunk in (0, 1)]
    for k, one in enumerate(sets):
        # 300 * 299 / 2 pairs over 400 rows: 112 collide, of which two salts share 0.3.
        assert 60 < len(one) < 170
        assert all(len(one & other) < 6 for other in sets[:k])
    equal = FeatureEmbedding(
        BIG, dim=4, options=Embedding(multiplex=Multiplex(rows=402, chunk=2, salt="none")), rngs=nnx.Rngs(0)
    )
    assert collisions(equal, "a", 0) == collisions(equal, "b", 0) != collisions(equal, "a", 1)


def test_rows_are_pinned():
    """A checkpoint must find the same rows in every process and release."""
    assert np.asarray(_rows_of(jnp.arange(6), build().slot("user"))).tolist() == [
        [0, 0], [1, 1], [9, 2], [11, 3], [6, 11], [6, 9],
    ]  # fmt: skip


def test_a_request_equals_its_tiled_batch():
    model = FM(dim=6, embedding=Embedding(std=1.0, multiplex=Multiplex(rows=ROWS, chunk=3))).make(
        FEATURES, rngs=nnx.Rngs(0)
    )
    assert model.linear.embed.table_1.shape == (16, 1)  # narrower than a chunk
    batch = rows.batch_of(FEATURES)
    users = {n for f in FEATURES if f.role == "user" for n in f.arrays()}
    tiled = {n: np.repeat(a[1:2], 6, axis=0) if n in users else a for n, a in batch.items()}
    request = {n: a[:1] if n in users else a for n, a in tiled.items()}
    np.testing.assert_allclose(rows.logit(model, request), rows.logit(model, tiled), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Multiplex(rows=2), "at least 3"),
        (lambda: Multiplex(rows=9, chunk=0), "at least 1"),
        (lambda: Embedding(multiplex=Multiplex(rows=9), hash_buckets={"user": 5}), "leave hash_buckets empty"),
        (lambda: build(dim=7), "no multiple of multiplex.chunk=3"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
