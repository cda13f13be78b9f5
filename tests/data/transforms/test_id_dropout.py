"""Id dropout: which ids go, how many, and that evaluation never sees it."""

import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Dense, Features, Label, Sequence
from data.pipeline import Loader
from data.sources import InMemory
from data.transforms.base import RowRandom
from data.transforms.id_dropout import IdDropout

ITEM = Categorical(name="item", role="item", rows=50)
FEATURES = Features(
    all=(
        ITEM,
        Categorical(name="brand", role="item", rows=9),
        Sequence(name="history", of=ITEM, length=5),
        Dense(name="content", dim=2),
        Label(name="click"),
    )
)


def columns(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    length = rng.integers(0, 6, count).astype(np.int32)
    history = rng.integers(2, 50, (count, 5)) * (np.arange(5)[None] < length[:, None])
    return {
        "item": rng.integers(0, 50, count).astype(np.int32),
        "brand": rng.integers(2, 9, count).astype(np.int32),
        "history": history.astype(np.int32),
        "history/length": length,
        "content": rng.normal(size=(count, 2)).astype(np.float32),
        "click": np.ones(count, np.float32),
    }


def test_the_named_ids_give_way_to_the_unknown_at_their_rates():
    batch = columns(4000)
    out = IdDropout(rates={"item": 0.2, "history": 0.5})(batch, rng=np.random.default_rng(1))
    assert {n: a.dtype for n, a in out.items()} == {n: a.dtype for n, a in batch.items()}
    for name, rate in (("item", 0.2), ("history", 0.5)):
        known = batch[name] >= 2
        dropped = out[name] != batch[name]
        assert (out[name][dropped] == 1).all() and not dropped[~known].any()  # 0 is missing, and pads
        assert abs(dropped[known].mean() - rate) < 0.02
    for name in ("brand", "content", "history/length", "click"):
        np.testing.assert_array_equal(out[name], batch[name])


def test_a_row_loses_the_same_ids_whichever_process_reads_it():
    transform, batch = IdDropout(rates={"history": 0.5, "item": 0.5}), columns(8)
    whole = transform(batch, rng=RowRandom((3, 1), start=0, stop=8, total=8))
    part = transform({n: a[4:] for n, a in batch.items()}, rng=RowRandom((3, 1), start=4, stop=8, total=8))
    for name, array in part.items():
        np.testing.assert_array_equal(array, whole[name][4:])


def test_training_drops_and_a_pass_without_the_transform_does_not():
    source = InMemory(columns(64), features=FEATURES)
    loader = Loader(batch_size=64, transforms=(IdDropout(rates={"item": 0.9}),), prefetch=0)
    batches = loader.open(source)
    assert (next(batches)["item"] == 1).mean() > 0.7
    batches.close()
    plain = next(iter(Loader(batch_size=64, prefetch=0).once(source)))
    np.testing.assert_array_equal(plain["item"], source.columns["item"])


def test_what_has_no_ids_is_named():
    with pytest.raises(UserError, match="'content' is dense and has no ids"):
        IdDropout(rates={"content": 0.1}).features(FEATURES)
    with pytest.raises(KeyError, match="did you mean 'item'"):
        IdDropout(rates={"itm": 0.1}).features(FEATURES)
    with pytest.raises(ValueError, match="below 1"):
        IdDropout(rates={"item": 1.0})
