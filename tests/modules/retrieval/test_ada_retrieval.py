"""Ada-Retrieval: each round by its equations in numpy, and one round where the adapters do nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.errors import UserError
from data.features import FIRST, Categorical, Features, Label, Sequence
from data.transforms.history import RandomPrefix
from modules.retrieval.ada_retrieval import AdaRetrieval
from modules.sequential.sasrec import SASRec
from train.tasks.adaptive_rounds import AdaptiveRounds

ITEMS, LENGTH, DIM = 40, 6, 8


def features(items=ITEMS):
    item = Categorical(name="item", role="user", rows=FIRST + items)
    return Features(all=(Sequence(name="history", role="user", of=item, length=LENGTH),))


def made(**options):
    config = AdaRetrieval(backbone=SASRec(dim=DIM, depth=1), rounds=3, per_round=4, **options)
    model = config.make(features(), rngs=nnx.Rngs(0))
    model.backbone.item.table[...] = jax.random.normal(jax.random.key(1), model.backbone.item.table.shape)
    return model


def outputs(model, batch):
    graph, state = nnx.split(model)
    return jax.device_get(jax.jit(lambda s, b: nnx.merge(graph, s)(b))(state, batch))


@pytest.fixture
def batch(rng):
    ids = np.stack([rng.choice(ITEMS, LENGTH, replace=False) for _ in range(5)]) + FIRST
    length = np.array([6, 4, 1, 6, 3])
    ids = np.where(np.arange(LENGTH) < length[:, None], ids, 0)
    return {"history": jnp.asarray(ids, jnp.int32), "history/length": jnp.asarray(length, jnp.int32)}


def norm(x, layer):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6)
    return scaled * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])


def filtered(x, adapter):
    """The circular convolution along the list that a product of frequencies is."""
    w = np.asarray(adapter.filter[...])
    kernel = np.fft.irfft(w[..., 0] + 1j * w[..., 1], n=len(x), axis=0)
    mixed = np.stack([sum(kernel[j] * x[(i - j) % len(x)] for j in range(len(x))) for i in range(len(x))])
    return norm(x + mixed, adapter.list_norm)


def state_after(vectors, gru):
    w, b, u = (np.asarray(p[...]) for p in (gru.inputs.kernel, gru.inputs.bias, gru.recurrent))
    s = np.zeros(DIM)
    for x in vectors:
        z_x, r_x, n_x = np.split(x @ w + b, 3)
        z_s, r_s, n_s = np.split(s @ u, 3)
        z = 1 / (1 + np.exp(-(z_x + z_s)))
        n = np.tanh(n_x + n_s / (1 + np.exp(-(r_x + r_s))))
        s = (1 - z) * s + z * n
    return s


def test_rounds_are_those_of_the_equations(batch):
    model = made()
    model.items.filter[...] = jax.random.normal(jax.random.key(2), model.items.filter.shape)
    out = outputs(model, batch)
    table, scale = np.asarray(model.backbone.item.rows(), np.float64), np.sqrt(DIM)
    past = table[np.asarray(batch["history"])] * scale
    graph, backbone = nnx.split(model.backbone)
    encode = jax.jit(lambda s, x, b: nnx.merge(graph, s).encode(x, batch=b))
    for row in range(5):
        seen = set(np.asarray(batch["history"][row]).tolist()) | {0, 1}
        lists, asked = [], []
        for t in range(3):
            x = past.copy()
            if lists:
                shown = np.concatenate([filtered(table[ids] * scale, model.items) for ids in lists])
                logits = past[row] @ shown.T / np.sqrt(DIM)
                weights = np.exp(logits - logits.max(-1, keepdims=True))
                x[row] = norm(past[row] + weights / weights.sum(-1, keepdims=True) @ shown, model.items.norm)
            _, last = encode(backbone, jnp.asarray(x, jnp.float32), batch)
            user = last = np.asarray(last[row], np.float64)
            if asked:
                both = np.concatenate([last, state_after(asked, model.users.gru)])
                wide, narrow = ({n: np.asarray(getattr(m, n)[...]) for n in ("kernel", "bias")} for m in
                                (model.users.wide, model.users.narrow))  # fmt: skip
                added = np.maximum(both @ wide["kernel"] + wide["bias"], 0) @ narrow["kernel"] + narrow["bias"]
                user = norm(last + added, model.users.norm)
            np.testing.assert_allclose(out["users"][row, t], user, rtol=2e-4, atol=2e-4)
            scores = [-np.inf if i in seen else table[i] @ user for i in range(len(table))]
            found = np.argsort(-np.array(scores), kind="stable")[:4]
            assert out["item"][row, 4 * t : 4 * t + 4].tolist() == found.tolist()
            np.testing.assert_allclose(out["score"][row, 4 * t : 4 * t + 4], np.array(scores)[found], rtol=1e-3)
            seen |= set(found.tolist())
            lists.append(found)
            asked.append(last)


def test_without_adapters_the_rounds_are_one_list_to_the_bit(batch):
    rounds = made(adapters="none")
    config = AdaRetrieval(backbone=SASRec(dim=DIM, depth=1), rounds=1, per_round=12, adapters="none")
    whole = config.make(features(), rngs=nnx.Rngs(0))
    whole.backbone.item.table[...] = rounds.backbone.item.table[...]
    many, one = outputs(rounds, batch), outputs(whole, batch)
    np.testing.assert_array_equal(many["item"], one["item"])
    np.testing.assert_array_equal(many["score"], one["score"])
    adapted = outputs(made(), batch)
    np.testing.assert_array_equal(adapted["item"][:, :4], one["item"][:, :4])  # nothing to adapt to yet
    assert (adapted["item"][:, 4:] != one["item"][:, 4:]).any()


@pytest.mark.parametrize("adapters", ["items", "users"])
def test_each_adapter_is_an_idea_of_its_own(batch, adapters):
    model = made(adapters=adapters)
    assert (model.items is None) != (model.users is None)
    shown = outputs(model, batch)["item"]
    assert all(len(set(row)) == 12 for row in shown.tolist())


def test_the_loss_of_later_rounds_weighs_less_and_reaches_what_was_shown(batch, rng):
    model = made()
    graph, params = nnx.split(model, nnx.Param)
    full = {**batch, "target": jnp.asarray(rng.integers(FIRST, ITEMS, 5))}

    def loss(params):
        out = nnx.merge(graph, params)(full)
        total, logs = AdaptiveRounds(decay=0.3).loss(out, full)
        return total, (logs, out)

    (total, (logs, out)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    parts = [float(logs[f"round_{t}_loss"]) for t in range(3)]
    assert float(total) == pytest.approx(parts[0] + 0.3 * parts[1] + 0.09 * parts[2], rel=1e-6)
    assert float(AdaptiveRounds(decay=0.0).loss(out, full)[0]) == pytest.approx(parts[0])
    logits = np.asarray(out["users"][:, 1] @ out["items"].T, np.float64)[:, FIRST:]
    chosen = logits[np.arange(5), np.asarray(full["target"]) - FIRST]
    assert parts[1] == pytest.approx((np.log(np.exp(logits).sum(1)) - chosen).mean(), rel=1e-4)
    assert float(jnp.abs(gradient["items"]["filter"][...]).max()) > 0
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(gradient["users"]))
    with pytest.raises(UserError, match="RandomPrefix"):
        AdaptiveRounds().loss(out, batch)


def test_more_than_there_is_is_refused():
    config = AdaRetrieval(backbone=SASRec(dim=DIM), rounds=3, per_round=4)
    with pytest.raises(ValueError, match="lower rounds"):
        config.make(features(items=17), rngs=nnx.Rngs(0))
    config.make(features(items=18), rngs=nnx.Rngs(0))


def test_a_random_prefix_ends_before_its_target(rng):
    history = np.array([[5, 6, 7, 8], [9, 4, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]], np.int32)
    length = np.array([4, 2, 1, 0], np.int32)
    seen = set()
    for _ in range(50):
        cut = RandomPrefix()({"history": history, "history/length": length}, rng=rng)
        n = int(cut["history/length"][0])
        seen.add(n)
        assert cut["history"][0].tolist() == history[0, :n].tolist() + [0] * (4 - n)
        assert cut["target"].tolist() == [history[0, n], 4, 0, 0]
        assert cut["history/length"].tolist() == [n, 1, 1, 0]
        assert cut["history/length"].dtype == np.int32 and cut["target"].dtype == np.int32
    assert seen == {1, 2, 3}
    declared = RandomPrefix().features(features())
    assert declared["target"].kind == "label"


def test_a_known_target_follows_the_whole_history(rng):
    history = np.array([[5, 6, 7], [9, 4, 0], [3, 0, 0]], np.int32)
    length, known = np.array([3, 2, 1], np.int32), np.array([11, 12, 13], np.int32)
    seen = set()
    for _ in range(50):
        cut = RandomPrefix()({"history": history, "history/length": length, "target": known}, rng=rng)
        n = int(cut["history/length"][0])
        seen.add(n)
        assert cut["target"][0] == (history[0, n] if n < 3 else 11) and cut["target"][2] == 13
        assert cut["history"][0].tolist() == history[0, :n].tolist() + [0] * (3 - n)
    assert seen == {1, 2, 3}
    labelled = features().plus(Label(name="target", type="class"))
    assert RandomPrefix().features(labelled) is labelled
