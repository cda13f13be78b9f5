import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Image, Label, Sequence
from data.pipeline import Loader
from data.sources import InMemory
from data.transforms.images import Augment, nearest, recolour
from data.transforms.negatives import HardNegatives, LogQ, PopularityNegatives, alias_table, count
from data.transforms.sequences import Cloze, Subsequence, Truncate

ITEM = Categorical(name="item", rows=50)
FEATURES = Features(all=(ITEM, Sequence(name="history", of=ITEM, length=6), Label(name="click")))


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    n = 400
    length = rng.integers(0, 7, n)
    length[:2] = 0, 6
    history = np.where(np.arange(6) < length[:, None], np.minimum(2 + rng.zipf(1.5, (n, 6)), 49), 0)
    item = np.minimum(2 + rng.zipf(1.5, n), 49)
    return InMemory({"item": item, "history": history, "history/length": length, "click": item % 2}, features=FEATURES)


def run(source, *transforms, batches=1, batch_size=400):
    read = Loader(batch_size=batch_size, shuffle=False, transforms=transforms, prefetch=0).open(source)
    made = [next(read) for _ in range(batches)]
    for name, (shape, dtype) in read.features.arrays().items():
        assert made[0][name].shape[1:] == shape and made[0][name].dtype == dtype, name
    return made[0] if batches == 1 else made


def padded(batch):
    held = np.arange(batch["history"].shape[1]) < batch["history/length"][:, None]
    return (batch["history"][~held] == 0).all()


def test_truncate_keeps_the_newest(source):
    batch = run(source, Truncate(length=3))
    for row in range(400):
        old = source.columns["history"][row][: source.columns["history/length"][row]]
        assert batch["history"][row][: batch["history/length"][row]].tolist() == old[-3:].tolist()
    assert padded(batch)


def test_subsequences_are_windows_of_the_history(source):
    first, second = run(source, Subsequence(length=4, least=2), batches=2)
    for batch in (first, second):
        assert padded(batch)
        for row in range(400):
            old = list(source.columns["history"][row][: source.columns["history/length"][row]])
            new = list(batch["history"][row][: batch["history/length"][row]])
            assert min(2, len(old)) <= len(new) <= min(4, len(old))
            assert any(old[at : at + len(new)] == new for at in range(len(old) - len(new) + 1))
    assert not np.array_equal(first["history"], second["history"])


def test_cloze_hides_and_tells_what_it_hid(source):
    batch = run(source, Cloze(rate=0.3))
    hidden = batch["history"] == 50
    original, length = source.columns["history"], source.columns["history/length"]
    assert np.array_equal(np.where(hidden, batch["targets"], batch["history"]), original)
    assert (batch["targets"][~hidden] == 0).all()
    assert (hidden.any(axis=1) == (length > 0)).all()
    assert 0.25 < hidden.sum() / length.sum() < 0.55
    features = Cloze().features(FEATURES)
    assert features["history"].size == features["item"].size == 51


def test_cloze_masks_the_newest_alone_in_a_share_of_the_rows(source):
    batch = run(source, Cloze(rate=0.9, last=0.4))
    length = source.columns["history/length"]
    hidden = batch["history"] == 50
    newest = np.arange(6) == length[:, None] - 1
    alone = (hidden == newest).all(axis=1)
    assert 0.35 < alone[length > 2].mean() < 0.45  # at rate .9 hardly a row of three hides just its newest by chance
    assert np.array_equal(run(source, Cloze(last=1.0))["history"] == 50, newest)
    assert np.array_equal(np.where(hidden, batch["targets"], batch["history"]), source.columns["history"])
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        Cloze(rate=1.5)


def test_cloze_may_mask_the_item_after_the_history_too(source):
    source.columns["item"][3] = 0
    batch = run(source, Cloze(last=1.0, target="item"))
    original, length, item = (source.columns[n] for n in ("history", "history/length", "item"))
    for row in range(400):
        known = [*original[row][: length[row]], *([item[row]] if item[row] else [])][-6:]
        hidden = batch["targets"][row].tolist()
        assert hidden[: len(known)] == [0] * (len(known) - 1) + [known[-1]]
        assert batch["history"][row].tolist() == [*known[:-1], 50, *[0] * (6 - len(known))]
        assert batch["history/length"][row] == len(known)
    with pytest.raises(UserError, match="no label 'next'"):
        run(source, Cloze(target="next"))


def test_popular_negatives_follow_the_power_law_and_miss_the_target(source):
    alpha = 0.5
    many = run(source, PopularityNegatives(items="item", target="item", alpha=alpha, count=500))
    assert not (many["negatives"] == many["item"][:, None]).any()
    counts = count(source, "item")
    share = np.where(counts > 0, counts**alpha, 0) / (counts[counts > 0] ** alpha).sum()
    rare = (many["item"] > 5) & (many["item"] < 49)  # their target is seldom drawn, so what is left out hardly matters
    drawn = np.bincount(many["negatives"][rare].ravel(), minlength=50) / many["negatives"][rare].size
    assert np.abs(drawn - share).max() < 0.02
    assert np.allclose(np.exp(many["negatives/logq"]), share[many["negatives"]], rtol=1e-5)
    assert np.allclose(np.exp(many["targets/logq"]), share[many["item"]], rtol=1e-5)
    flat = run(source, PopularityNegatives(items="item", target="item", alpha=0.0, count=500))
    drawn = np.bincount(flat["negatives"][rare].ravel(), minlength=50)[counts > 0]
    assert drawn.min() > 0.8 * drawn.mean() and (counts[np.unique(flat["negatives"])] > 0).all()


def test_negatives_of_each_position(source):

    batch = run(source, Cloze(), PopularityNegatives(count=3))
    assert batch["negatives"].shape == (400, 6, 3)
    assert not (batch["negatives"] == batch["targets"][..., None]).any()


def test_alias_table_is_exact():
    share = np.random.default_rng(0).dirichlet(np.full(30, 0.3))
    accept, alias = alias_table(share)
    back = accept.copy()
    np.add.at(back, alias, 1 - accept)
    assert np.allclose(back / 30, share)


def test_log_share_of_the_batch_items(source):
    batch = run(source, LogQ())
    counts = np.bincount(source.columns["item"], minlength=50)
    assert np.allclose(np.exp(batch["item_logq"]), counts[batch["item"]] / 400)


def test_hard_negatives_come_from_the_index(source, tmp_path):
    table = np.zeros((50, 4), np.int32)
    table[:, 0] = np.arange(50)
    table[:, 1:3] = np.stack([np.arange(50) ^ 1, np.arange(50) ^ 2], 1)
    np.save(tmp_path / "near.npy", table)
    batch = run(source, HardNegatives(path=str(tmp_path / "near.npy"), count=2))
    known = (table[batch["item"], 1:3] >= 2).all(axis=1)
    assert known.any()
    assert np.array_equal(np.sort(batch["negatives"][known], 1), np.sort(table[batch["item"][known], 1:3], 1))
    assert (run(source, HardNegatives(path=str(tmp_path / "near.npy"), count=9))["negatives"][:, 3:] == 0).all()
    with pytest.raises(UserError, match=r"needs at least \(50, 5\)"):
        run(source, HardNegatives(path=str(tmp_path / "near.npy"), skip=4))
    with pytest.raises(UserError, match="HardNegatives"):
        run(source, HardNegatives(path=str(tmp_path / "none.npy")))


def test_randomness_of_a_row_does_not_depend_on_processes(source):
    loader = Loader(batch_size=40, transforms=(Cloze(), PopularityNegatives(), Subsequence(length=4)), prefetch=0)
    whole = next(loader.open(source))
    half = next(loader.open(source, process_index=1, process_count=2))
    for name, array in half.items():
        assert np.array_equal(array, whole[name][20:]), name


def images(count=64, height=12, width=16):
    values = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    features = Features(all=(Image(name="image", height=height, width=width),))
    return InMemory({"image": values}, features=features)


def test_augment_keeps_shape_and_differs_by_batch():
    source = images()
    first, second = run(source, Augment(), batches=2, batch_size=64)
    assert not np.array_equal(first["image"], second["image"])
    still = run(source, Augment(scale=1.0, flip=False, brightness=0, contrast=0, saturation=0), batch_size=64)
    assert np.array_equal(still["image"], source.columns["image"])
    mirrored = run(source, Augment(scale=1.0, brightness=0, contrast=0, saturation=0), batch_size=64)["image"]
    same = [np.array_equal(a, b) for a, b in zip(mirrored, source.columns["image"], strict=True)]
    turned = [np.array_equal(a[:, ::-1], b) for a, b in zip(mirrored, source.columns["image"], strict=True)]
    assert all(a or b for a, b in zip(same, turned, strict=True)) and 10 < sum(turned) < 54


def test_windows_and_colours_against_one_image_at_a_time():
    at = nearest(10, side=np.array([1.0, 0.5, 0.5]), at=np.array([0.3, 0.0, 1.0]))
    assert at.tolist() == [list(range(10)), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [5, 5, 6, 6, 7, 7, 8, 8, 9, 9]]
    values = images(3).columns["image"]
    b, c, s = np.array([1.2, 0.8, 1.0]), np.array([0.9, 1.1, 1.0]), np.array([0.5, 1.3, 1.0])
    got = recolour(values, brightness=b, contrast=c, saturation=s)
    for i, image in enumerate(values.astype(np.float64)):
        bright = image * b[i]
        stretched = (bright - bright.mean()) * c[i] + bright.mean()
        grey = (stretched @ [0.299, 0.587, 0.114])[..., None]
        want = np.clip((stretched - grey) * s[i] + grey, 0, 255)
        assert np.abs(got[i] - want).max() <= 0.51
