"""What all public data sets share: one class a data set, built by TFDS without TensorFlow, whole or not at all.

A builder names its columns and yields tables per split; here they are cut into blocks, counted, hashed, searched for
leaks and given vocabularies. `Built` is the source that trains on the result.
"""

import contextlib
import fcntl
import importlib
import io
import json
import logging
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import ClassVar

import chz
import pyarrow as pa
import tensorflow_datasets as tfds

from data.building.apart import Apart, reading
from data.building.blocks import BLOCK, KEY, cut, example, tfds_features
from data.building.ledger import Keys, Ledger
from data.building.read import Manual
from data.building.texts import Texts, tokenizers
from data.cluster import Cluster
from data.errors import UserError
from data.features import FIRST, Features
from data.prepared import Prepared
from data.sources import Source, SourceConfig
from data.tokenizer import save
from data.vocabulary import named

log = logging.getLogger("adloom.data")

Config = tfds.core.BuilderConfig
Version = tfds.core.Version
VOCABULARIES = "vocabularies"


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Subclasses say what they hold (`columns`, `keys`), whose it is, and yield it (`parts`)."""

    VERSION = Version("1.0.0")
    home: ClassVar[str]
    """Where the owner publishes the files, in words a person can follow."""
    citation: ClassVar[str]
    licence: ClassVar[str]
    columns: ClassVar[pa.Schema]
    """What is stored. Integers and strings hold no nulls; a missing string is empty, a missing number NaN."""
    md5: ClassVar[Mapping[str, str]] = {}
    """Of the published files, unpacked, where known."""
    max_rejects = 0.01
    together: ClassVar[bool] = False
    """Whether a split needs what was read of another, so that none can be read apart."""
    apart: Apart | None = None
    """Reads the splits, where this process does not."""
    learn_from: ClassVar[tuple[str, ...]] = ("train",)
    """Splits whose values make the vocabularies."""
    tokens: ClassVar[int] = 8000
    """Size of the tokenizer of each text feature that names a tokenizer file; `rows` gives the size reached."""

    @property
    def keys(self) -> Keys:
        """What the columns are to a reader; a plain attribute where it is the same in every config."""
        return Keys()

    @property
    def MANUAL_DOWNLOAD_INSTRUCTIONS(self) -> str:
        return f"get the files from {self.home}"

    def parts(self, manual: Manual) -> dict[str, Iterable[pa.Table]]:
        """The tables of each split, read from the user's folder when iterated."""
        raise NotImplementedError(f"{type(self).__name__} does not define parts")

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        """What the columns mean to a model; `rows` gives the size of the table of each vocabulary."""
        raise NotImplementedError(f"{cls.__name__} does not define adloom_features")

    def stored(self) -> pa.Schema:
        """The columns of the config being built."""
        return self.columns

    def reader(self, folder: str | Path) -> Manual:
        return Manual(Path(folder), home=self.home, max_rejects=self.max_rejects, md5=self.md5)

    # TFDS's own hooks ------------------------------------------------------------------------------------------

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=(type(self).__doc__ or "").strip(),
            features=tfds_features(self.stored()),
            homepage=None,
            citation=self.citation,
            license=self.licence,
            disable_shuffling=True,  # the order of the files stays, and the loader shuffles
            metadata=tfds.core.MetadataDict({KEY: BLOCK}),
        )

    def _split_generators(self, dl_manager):
        self._manual = self.reader(dl_manager.manual_dir)
        config = self.builder_config.name if self.builder_config else None
        features = self.adloom_features(defaultdict(lambda: FIRST), config=config)
        self._ledger = Ledger(self.keys, vocabularies=named(features), learn_from=self.learn_from)
        self._texts = {file: Texts(columns) for file, columns in tokenizers(features).items()}
        self.sizes: dict[str, int] = {}  # rows of tables whose ids the builder numbers itself
        parts = self.parts(self._manual)
        if self.apart is not None:
            parts = self.apart.read(self, iter(parts), self._manual)
        return {split: self._blocks(split, tables) for split, tables in parts.items()}

    def _generate_examples(self):
        raise NotImplementedError("parts yields the examples")

    def _blocks(self, split: str, tables: Iterable[pa.Table]) -> Iterator[tuple[int, dict]]:
        for number, table in enumerate(cut(tables, schema=self.stored())):
            self._ledger.add(split, table)
            if split in self.learn_from:
                for texts in self._texts.values():
                    texts.add(table)
            yield number, example(table)
        self._manual.check()
        if not self._ledger.rows.get(split):
            raise UserError(f"{self.name}: split {split!r} has no rows")
        log.info("%s %s: %d rows", self.name, split, self._ledger.rows[split])

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        """Also writes, before TFDS renames the folder to its name, what was learnt on the way."""
        with contextlib.ExitStack() as self.held:  # what a builder keeps open until all splits are written
            super()._download_and_prepare(dl_manager, download_config)
        folder, ledger, manual = Path(self.data_dir), self._ledger, self._manual
        manual.check()
        tables = dict(self.sizes)
        (folder / VOCABULARIES).mkdir()
        for file, texts in self._texts.items():
            tokenizer = texts.learn(size=self.tokens)
            save(tokenizer, target=folder / VOCABULARIES / file)
            tables[file] = tokenizer.get_vocab_size()
        for name, counter in ledger.counters.items():
            vocabulary = counter.vocabulary(name)
            vocabulary.save(folder / VOCABULARIES)
            tables[name] = vocabulary.rows
        rejects = manual.rejects
        if rejects.count:
            rejects.write(folder / "rejects.jsonl")
        self.info.metadata.update(
            {
                "statistics": ledger.statistics(),
                "leaks": ledger.leaks(),
                "tables": tables,
                "files": manual.used,
                "notes": manual.notes,
                "rejected": {"rows": rejects.count, "of": manual.rows, "why": rejects.summary()},
            }
        )


def build(
    name: str,
    *,
    manual: str | Path,
    out: str | Path,
    config: str | None = None,
    max_rejects: float | None = None,
    cluster: Cluster | None = None,
) -> Path:
    """Builds a data set unless it is there already; returns its folder. Workers of a `cluster` read a split each."""
    cls = find(name)
    manual, out = Path(manual), Path(out)
    names = [c.name for c in cls.BUILDER_CONFIGS]
    if config is not None and config not in names:
        raise UserError(f"{name} has no config {config!r}; it has {', '.join(names) or 'none'}")
    if not manual.is_dir() or not any(manual.iterdir()):
        raise UserError(f"{manual}: no files there; get them from {cls.home}")
    out.mkdir(parents=True, exist_ok=True)
    with (out / f".{name}.lock").open("w") as lock, tempfile.TemporaryDirectory() as downloads:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process builds {name} in {out}: wait for it") from error
        for part in (out / name).rglob("incomplete.*"):  # of a build that was killed, since we hold the lock
            shutil.rmtree(part, ignore_errors=True)
        make = partial(_make, name, out=out, config=config, max_rejects=max_rejects)
        builder = make()
        if (builder.data_path / "dataset_info.json").exists():
            _same_files(Path(builder.data_path), manual)
            log.info("%s is built already; remove it to build it anew", builder.data_path)
        else:
            with _quiet(), reading(builder, make=make, cluster=cluster, manual=manual):
                builder.download_and_prepare(
                    download_dir=downloads, download_config=tfds.download.DownloadConfig(manual_dir=str(manual))
                )
        return Path(builder.data_path)


def _make(name: str, *, out: Path, config: str | None, max_rejects: float | None) -> Builder:
    builder = find(name)(data_dir=str(out), config=config, file_format="array_record")
    builder.sizes = {}
    if max_rejects is not None:
        builder.max_rejects = max_rejects
    return builder


def _same_files(built: Path, manual: Path) -> None:
    """Stops where the files have changed since, so that nobody takes old rows for new ones."""
    for name, size in metadata(built)["files"].items():
        file = manual / name
        if file.is_file() and file.stat().st_size != size:
            raise UserError(
                f"{built} was built from another {name} ({size} bytes, now {file.stat().st_size}): remove it"
            )


@contextlib.contextmanager
def _quiet():
    """TFDS's own lines and bars say nothing that ours do not."""
    tfds.disable_progress_bar()
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl.setLevel(level)
        tfds.enable_progress_bar()


def known() -> list[str]:
    """Names of the data sets that can be built."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem not in ("__init__", "base"))


def find(name: str) -> type[Builder]:
    """The builder in data/builders/<name>.py."""
    if name not in known():
        near = get_close_matches(name, known(), n=1)
        raise UserError(
            f"no data set {name!r}; did you mean {near[0]!r}?"
            if near
            else f"no data set {name!r}; there are {', '.join(known())}"
        )
    module = importlib.import_module(f"data.builders.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Builder) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UserError(f"data/builders/{name}.py defines {len(found)} builders; one is due")
    return found[0]


def metadata(path: str | Path) -> dict:
    """What a build left beside the rows: statistics, leaks, files, tables."""
    file = Path(path) / "metadata.json"
    if not file.exists():
        raise UserError(f"{path}: no data set here (no metadata.json); run python -m data build")
    return json.loads(file.read_text())


def table(path: str | Path) -> str:
    """The statistics of a built data set, for people."""
    found = metadata(path)
    statistics = found["statistics"]
    lines = [f"{'split':<20}{'rows':>12}{'positives':>12}  hash"]
    for split, values in statistics["splits"].items():
        lines.append(f"{split:<20}{values['rows']:>12,}{values.get('positives', '-'):>12}  {values['hash']}")
    for name in ("users", "items"):
        if name in statistics:
            lines.append(f"{name:<20}{statistics[name]:>12,}")
    if "density" in statistics:
        lines.append(f"{'density':<20}{statistics['density']:>12.3g}")
    lines += [f"{'split hash':<20}{statistics['hash']:>12}"]
    rejected = found["rejected"]
    lines += [f"rejected: {rejected['rows']} of {rejected['of']} rows", *rejected["why"]]
    return "\n".join([*lines, *found["notes"], *found["leaks"]])


@chz.chz
class Built(SourceConfig):
    """One split of a data set that `python -m data build` made, with the features that its builder declares."""

    path: str = chz.field(doc="folder of the data set: .../frappe/x1/1.0.0")
    split: str = chz.field(doc="split, or a slice of whole blocks such as train[:10%]")
    without: tuple[str, ...] = chz.field(default=(), doc="features to leave out")
    max_rejects: float = chz.field(default=0.01, doc="share of rows that may be set aside before the run stops")
    memory: float = chz.field(default=2.0, doc="GiB of encoded rows held in memory; more goes to the cache")
    cache: str | None = chz.field(default=None, doc="cache folder; default: $XDG_CACHE_HOME/adloom or ~/.cache/adloom")

    def make(self) -> Source:
        folder = Path(self.path)
        tables = metadata(folder)["tables"]
        parts = folder.resolve().parts  # name/version or name/config/version
        name, config = (parts[-3], parts[-2]) if parts[-3] in known() else (parts[-2], None)
        features = find(name).adloom_features(tables, config=config).without(*self.without)
        return Prepared(
            path=self.path,
            split=self.split,
            features=features,
            vocabularies=str(folder / VOCABULARIES),
            max_rejects=self.max_rejects,
            memory=self.memory,
            cache=self.cache,
        ).make()


def listing() -> str:
    """Every data set: its configs, its owner, its licence."""
    lines = []
    for name in known():
        cls = find(name)
        configs = ", ".join(config.name for config in cls.BUILDER_CONFIGS)
        lines.append(f"{name}{f' ({configs})' if configs else ''}\n    from {cls.home}\n    {cls.licence}")
    return "\n".join(lines)
