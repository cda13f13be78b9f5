import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as Picture

from data.errors import UserError
from data.features import Categorical, Features, Image, Label, Sequence
from data.pipeline import Loader
from data.prepared import Prepared
from data.records import Records, write_records
from data.sources import Source

FEATURES = Features(
    all=(
        Categorical(name="ad", rows=2000),
        Sequence(name="seen", of=Categorical(name="ad", rows=2000), length=3),
        Label(name="click"),
    )
)


def batches(rows, size):
    for at in range(0, rows, size):
        ids = np.arange(at, min(at + size, rows))
        seen = np.stack([ids % 3, ids % 5, ids % 7], 1)
        yield {"ad": ids, "seen": seen, "seen/length": np.full(len(ids), 3), "click": ids % 2}


def test_records_give_back_every_row(tmp_path):
    assert write_records(tmp_path / "r", batches=batches(1000, 300), features=FEATURES) == 1000
    source = Records(path=str(tmp_path / "r"), features=FEATURES).make()
    assert isinstance(source, Source) and len(source) == 1000
    at = np.array([999, 0, 255, 256, 0])
    whole = {name: np.concatenate([b[name] for b in batches(1000, 300)]) for name in FEATURES.arrays()}
    for name, array in source.take(at).items():
        assert np.array_equal(array, whole[name][at])
    assert source[777]["seen"].tolist() == [0, 2, 0]
    with pytest.raises(UserError, match="exists"):
        write_records(tmp_path / "r", batches=batches(10, 10), features=FEATURES)


def test_records_are_shuffled_by_block_and_window_with_few_blocks_held(tmp_path):
    write_records(tmp_path / "r", batches=batches(2000, 2000), features=FEATURES)
    source = Records(path=str(tmp_path / "r"), features=FEATURES.without("seen"), window=512).make()
    rows = np.concatenate([b["ad"] for b in Loader(batch_size=100, epochs=1, prefetch=2).open(source)])
    assert sorted(rows) == list(range(2000)) and not np.array_equal(rows, np.arange(2000))
    assert len(source._kept) <= 4


def test_a_broken_write_leaves_nothing(tmp_path):
    def broken():
        yield from batches(300, 300)
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        write_records(tmp_path / "r", batches=broken(), features=FEATURES)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no records"):
        Records(path=str(tmp_path / "r"), features=FEATURES).make()


def test_records_that_differ_from_the_declaration(tmp_path):
    write_records(tmp_path / "r", batches=batches(10, 10), features=FEATURES)
    other = Features(all=(Sequence(name="seen", of=Categorical(name="ad", rows=2000), length=4),))
    with pytest.raises(UserError, match="'seen' is declared"):
        Records(path=str(tmp_path / "r"), features=other).make()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    tfds = pytest.importorskip("tensorflow_datasets")
    data_dir = tmp_path_factory.mktemp("tfds")

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = data_dir

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "ad": np.int64,
                        "word": tfds.features.Text(),
                        "seen": tfds.features.Sequence(np.int64),
                        "page": tfds.features.Tensor(shape=(), dtype=np.bytes_),
                        "click": np.int64,
                    }
                )
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            out = io.BytesIO()
            Picture.new("RGB", (4, 4), (9, 8, 7)).save(out, "PNG")
            for i in range(20):
                row = {"ad": i, "word": f"w{i % 3}", "seen": list(range(i % 4)), "click": i % 2}
                yield i, row | {"page": out.getvalue() if i else b"no image"}

    builder = Tiny(data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare()
    return builder.data_path


def test_a_prepared_data_set_is_encoded_with_its_faults_named(built, tmp_path):
    features = FEATURES.plus(Categorical(name="word", rows=50, encode="hash"), Image(name="page", height=4, width=4))
    config = Prepared(path=str(built), split="train", features=features, max_rejects=0.1)
    source = config.make()
    assert len(source) == 19 and source.rejects.counts == {("page", "image does not decode"): 1}
    assert source.columns["page"][0, 0, 0].tolist() == [9, 8, 7]
    assert len(np.unique(source.columns["word"])) == 3
    assert (source.columns["seen/length"] == source.columns["ad"] % 4).all()
    with pytest.raises(UserError, match="it has train"):
        Prepared(path=str(built), split="test", features=features).make()
    with pytest.raises(UserError, match="no prepared data set"):
        Prepared(path=str(tmp_path), split="train", features=features).make()


def test_arrow_of_rows():
    from data.prepared import _arrow

    assert _arrow([[], np.array([1, 2]), []]).to_pylist() == [[], [1, 2], []]
    assert _arrow([np.array([b"a", b"b"], object)]).to_pylist() == [["a", "b"]]
    assert _arrow([b"\xff\xd8", b"x"]).type == pa.large_binary()
    assert _arrow([np.float32(1), np.float32(2)]).type == pa.float32()
