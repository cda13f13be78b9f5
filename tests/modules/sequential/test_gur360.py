"""360's user: the sum of an event's embeddings, what a mask hides, and what no event's padding may say."""

import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Dense, Features, Label, Numeric, Sequence
from data.transforms.history import Ids
from modules.sequential.gur360 import GlobalUser

V, T, D, SIDE, CLASSES = 12, 5, 8, 3, 4
ROWS = {"behaviour": V, "behaviour_kind": 6, "behaviour_product": 5, "behaviour_hour": 26, "behaviour_weekday": 9}
FEATURES = Features(
    all=(
        *(Sequence(name=n, role="user", of=Categorical(name=n, rows=r), length=T) for n, r in ROWS.items()),
        Sequence(name="behaviour_gap", role="user", of=Numeric(name="gap"), length=T),
        Sequence(name="behaviour_text", role="user", of=Dense(name="content", dim=SIDE), length=T),
        Categorical(name="now_hour", role="user", rows=26, share="behaviour_hour"),
        Categorical(name="now_weekday", role="user", rows=9, share="behaviour_weekday"),
        Ids(name="interests", width=CLASSES, type="real"),
        Ids(name="tags", width=SIDE, type="real"),
        Label(name="tagged"),
    )
)


def make(**options):
    return GlobalUser(dim=D, heads=2, depth=1, aligned=6, dropout=0.0, **options).make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture
def batch(rng):
    length = np.array([5, 2, 0], np.int32)
    out = {n: rng.integers(2, r - 1, (3, T)).astype(np.int32) for n, r in ROWS.items()}
    out["behaviour_gap"] = rng.uniform(0, 6, (3, T)).astype(np.float32)
    out["behaviour_text"] = rng.normal(size=(3, T, SIDE)).astype(np.float32)
    out |= {f"{name}/length": length for name in list(out)}
    out["now_hour"], out["now_weekday"] = (rng.integers(2, 9, 3).astype(np.int32) for _ in range(2))
    out["tags"] = rng.normal(size=(3, SIDE)).astype(np.float32)
    return out


def changed(batch, name, at, value):
    column = batch[name].copy()
    column[at] = value
    return {**batch, name: column}


def test_an_event_is_the_sum_of_its_embeddings_and_a_masked_one_of_its_time_alone(batch):
    model = make()
    batch = changed(batch, "behaviour", (0, 3), V - 1)
    there = np.arange(T) < batch["behaviour/length"][:, None]
    found = model._events(batch, ids=batch["behaviour"], there=there)
    table = {n: np.asarray(m.table[...]) for n, m in model.tables.items()}
    for row, place in ((0, 0), (0, 3), (1, 1)):
        x = np.asarray(model.token.table[...])[batch["behaviour"][row, place]].copy()
        x += np.asarray(model.rank.vectors[...])[batch["behaviour/length"][row] - place]
        hours = np.exp(batch["behaviour_gap"][row, place]) - 1
        x += np.asarray(model.gap.vectors[...])[1 + np.sum(np.array([1, 6, 24, 72, 168, 336]) <= hours * 1.001)]
        for name in ("behaviour_hour", "behaviour_weekday"):
            x += table[name][batch[name][row, place]]
        if place != 3:
            for name in ("behaviour_kind", "behaviour_product"):
                x += table[name][batch[name][row, place]]
            x += batch["behaviour_text"][row, place] @ np.asarray(model.side.kernel[...])
        np.testing.assert_allclose(found[row, place], x, atol=1e-5)


def test_what_a_mask_hides_moves_nothing(batch):
    model, masked = make(), changed(batch, "behaviour", (0, 3), V - 1)
    other = 2 + (batch["behaviour_kind"][0, 3] - 1) % 3
    for name, value in (("behaviour_kind", other), ("behaviour_text", 9.0)):
        a, b = model(masked), model(changed(masked, name, (0, 3), value))
        np.testing.assert_array_equal(a["user"], b["user"])
        assert np.abs(model(batch)["user"] - model(changed(batch, name, (0, 3), value))["user"])[0].max() > 1e-5


def test_both_sides_are_seen_and_padding_is_not(batch):
    model = make()
    out = model(batch)
    after = model(changed(batch, "behaviour", (0, 4), 2 + (batch["behaviour"][0, 4] - 1) % (V - 3)))
    assert np.abs(out["hidden"][0, 0] - after["hidden"][0, 0]).max() > 1e-5
    padded = model(changed(changed(batch, "behaviour", (1, 3), 7), "behaviour_text", (1, 4), 5.0))
    for name in ("user", "last", "hidden", "interests"):
        np.testing.assert_allclose(out[name], padded[name], atol=1e-6)
    assert out["items"].shape == (V - 1, D) and np.isfinite(out["user"]).all()
    np.testing.assert_array_equal(out["hidden"][2], 0)


def test_the_moment_asked_about_has_its_own_time_and_its_tags_are_read_in_training_alone(batch):
    model = make()
    later = changed(batch, "now_hour", 0, 2 + (batch["now_hour"][0] - 1) % 20)
    assert np.abs(model(batch)["last"] - model(later)["last"])[0].max() > 1e-5
    untimed = make(times=False)
    np.testing.assert_array_equal(untimed(batch)["last"], untimed(later)["last"])
    assert not {"aligned", "tags"} & set(model(batch))
    told = model(batch, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(np.linalg.norm(told["aligned"], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(told["tags"], axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="sequence of tokens"):
        make(behaviour="behaviour_gap")
