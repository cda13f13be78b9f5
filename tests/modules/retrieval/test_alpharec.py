"""AlphaRec: the graph convolution by dense matrices, zero-shot items, steering, and what the state starts from."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.errors import UserError
from data.features import Categorical, Features
from data.mall.config import Mall
from data.mall.readers import MallListings
from data.mall.takers import MallTakers
from data.mall.texts import hashed_texts
from modules.retrieval.alpharec import AlphaRec
from train.graph_start import GraphFrom
from train.tasks.sampled_contrast import SampledContrast

U, V, C, D, E = 5, 8, 6, 4, 12
FEATURES = Features(all=(Categorical(name="user", role="user", rows=U), Categorical(name="item", role="item", rows=V)))
PAIRS = np.array([[2, 2], [2, 3], [3, 3], [3, 4], [4, 2], [4, 5], [4, 6]])  # item 7 was taken by nobody


def make(**options):
    model = AlphaRec(**{"dim": D, "texts": C, "hidden": (7,), "edges": E, **options}).make(FEATURES, rngs=nnx.Rngs(0))
    degree = np.bincount(PAIRS[:, 0], minlength=U), np.bincount(PAIRS[:, 1], minlength=V)
    weight = 1 / np.sqrt(degree[0][PAIRS[:, 0]] * degree[1][PAIRS[:, 1]])
    room = (0, E - len(PAIRS))
    model.graph.user[...] = jnp.asarray(np.pad(PAIRS[:, 0], room), jnp.int32)
    model.graph.item[...] = jnp.asarray(np.pad(PAIRS[:, 1], room), jnp.int32)
    model.graph.weight[...] = jnp.asarray(np.pad(weight, room), jnp.float32)
    return model


def mapped(model, x):
    for layer in model.mlp[:-1]:
        x = x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
        x = np.where(x > 0, x, 0.01 * x)
    last = model.mlp[-1]
    return x @ np.asarray(last.kernel[...]) + (0 if last.bias is None else np.asarray(last.bias[...]))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("options", [{}, {"hidden": (), "layers": 0}, {"layers": 1}])
def test_vectors_are_the_sum_over_the_layers_of_the_normalised_adjacency(options):
    model = make(**options)
    a = np.zeros((U + V, U + V))
    for user, item in PAIRS:
        a[user, U + item] = a[U + item, user] = 1
    degree = np.maximum(a.sum(1), 1)
    a = a / np.sqrt(degree[:, None] * degree[None])
    now = mapped(model, np.concatenate([np.asarray(model.graph.people[...]), np.asarray(model.graph.listings[...])]))
    total = now
    for _ in range(model.config.layers):
        now = a @ now
        total = total + now
    out = model({"user": np.array([2, 4]), "item": np.array([3, 7])})
    np.testing.assert_allclose(out["query"], unit(total[[2, 4]]), atol=1e-5)
    np.testing.assert_allclose(out["item"], unit(total[[U + 3, U + 7]]), atol=1e-5)
    assert len(nnx.to_flat_state(nnx.state(model, nnx.Param))) == (1 if options.get("hidden") == () else 4)


def test_an_item_of_no_id_has_the_vector_of_its_text():
    """As one in the graph that nobody took has, since nothing is spread to it."""
    model = make()
    text = np.asarray(model.graph.listings[...])[7]
    content = np.stack([text, text + 1])
    found = model({"item": np.array([1, 3]), "content": content})["item"]
    np.testing.assert_allclose(found[0], model({"item": np.array([7])})["item"][0], atol=1e-5)
    np.testing.assert_allclose(found[1], model({"item": np.array([3])})["item"][0], atol=1e-6)


def test_steering_brings_people_towards_what_is_asked_for():
    asked = np.random.default_rng(3).normal(size=(2, C)).astype(np.float32)
    near = []
    for a in (0.001, 0.3, 0.7, 1.0):
        model = make(steer=a)
        query = model({"user": np.array([2, 4]), "intent": asked})["query"]
        near.append(np.mean(np.sum(query * unit(mapped(model, asked)), axis=1)))
    assert (np.diff(near) > 0).all() and near[-1] > 0.999


def test_the_loss_is_info_nce_over_shared_negatives_without_the_item_itself():
    model = make()
    batch = {"user": np.array([2, 4]), "item": np.array([3, 5]), "negatives": np.array([[3, 6], [7, 7]])}
    out = model(batch, rngs=nnx.Rngs(0))
    loss = SampledContrast(temperature=0.5).loss(out, batch)[0]
    q, v, n = (np.asarray(out[k]) / (0.5 if k == "query" else 1) for k in ("query", "item", "negatives"))
    expected = []
    for i, own in enumerate(batch["item"]):
        others = [np.exp(q[i] @ n[k]) for k, j in enumerate((3, 6, 7, 7)) if j != own]
        positive = np.exp(q[i] @ v[i])
        expected.append(-np.log(positive / (positive + sum(others))))
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)
    with pytest.raises(UserError, match="SharedNegatives"):
        SampledContrast().loss(out, {})


def test_the_state_starts_from_who_took_what_and_what_texts_say():
    mall = Mall(size="tiny")
    start = GraphFrom(pairs=MallTakers(mall=mall), items=MallListings(mall=mall))
    users, items, room = 2 + mall.n_users, 2 + mall.n_items, 1 << 14
    shapes = {"people": (users, 256), "listings": (items, 256), **dict.fromkeys(("user", "item", "weight"), (room,))}
    found = start.arrays(**shapes)
    taken = MallTakers(mall=mall).make()
    assert (found["weight"] > 0).sum() == len(taken)
    mine = taken.columns["item"][taken.columns["user"] == 9]
    np.testing.assert_allclose(found["people"][9], hashed_texts(mall)[mine].mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(found["listings"], hashed_texts(mall))
    edge = 5
    of_user, of_item = (np.sum(taken.columns[n] == found[n][edge]) for n in ("user", "item"))
    np.testing.assert_allclose(found["weight"][edge], 1 / np.sqrt(of_user * of_item), rtol=1e-5)
    other = GraphFrom(pairs=start.pairs, items=start.items, shuffled=True).arrays(**shapes)
    assert (other["listings"] != found["listings"]).any(axis=1).mean() > 0.9
    np.testing.assert_allclose(np.sort(other["listings"][:, 0]), np.sort(found["listings"][:, 0]))
    with pytest.raises(UserError, match=r"raise model\.edges"):
        start.arrays(**{**shapes, "user": (9,), "item": (9,), "weight": (9,)})
    with pytest.raises(UserError, match=r"set model\.texts"):
        start.arrays(**{**shapes, "listings": (items, 8)})


def test_later_is_what_people_took_after_training():
    rows = MallTakers(mall=Mall(size="tiny"), split="test", most=3).make().take(np.arange(9))
    for history, taken in zip(rows["history"], rows["taken"], strict=True):
        assert not set(history[history > 0]) & set(taken[taken > 0])
    np.testing.assert_array_equal(rows["item"], rows["taken"][:, 0])
