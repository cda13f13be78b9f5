"""Stages of a pipeline that build a funnel and measure it; paths may be references such as "@export"."""

from pathlib import Path

import chz
import pyarrow.parquet as pq

from data.mall.config import Mall
from data.mall.sources import Split
from data.mall.tokenizer import word_tokenizer
from data.tables import TableConfig
from data.tokenizer import save
from serve.export import export_vectors
from serve.features.arrow_store import build
from serve.features.tables import parquet_table
from serve.funnel import open_funnel
from serve.funnel_build import build_funnel
from serve.funnel_config import FunnelConfig
from serve.pack import PLATFORMS
from serve.replay import replay, write_report
from train.pipeline import Results, Say, Stage

TABLE, STORE, FUNNEL, WORDS = "table.parquet", "features", "funnel", "tokenizer.json"


@chz.chz
class Table(Stage):
    """A table as the file `table.parquet`, which a Features stage and the attributes of an Index stage read."""

    table: TableConfig

    def run(self, *, out: Path, say: Say) -> Results:
        table = self.table.make()
        pq.write_table(table, out / TABLE)
        return {"rows": len(table), "columns": len(table.column_names)}


@chz.chz
class Features(Stage):
    """A feature store in this stage's folder `features`."""

    of: str = chz.field(doc="Parquet file or folder: of a Table stage, or of vectors")
    id: str = chz.field(default="item", doc="column that names a row; of vectors: id")

    def run(self, *, out: Path, say: Say) -> Results:
        store = build(parquet_table(Path(self.of)), id=self.id, output=out / STORE)
        return {"rows": len(store), "version": store.version}


@chz.chz
class Words(Stage):
    """The mall's words as the file `tokenizer.json`, for queries that people type."""

    mall: Mall = chz.field(default_factory=Mall)

    def run(self, *, out: Path, say: Say) -> Results:
        tokenizer = word_tokenizer(self.mall)
        save(tokenizer, target=out / WORDS)
        return {"words": tokenizer.get_vocab_size()}


@chz.chz
class ExportVectors(Stage):
    """One side of a two-tower model as an artefact; later stages name it "@<this stage>"."""

    of: str = chz.field(doc="workdir of a training run, such as @two_tower")
    vectors: tuple[str, ...] = ("query",)
    platforms: tuple[str, ...] = PLATFORMS

    def run(self, *, out: Path, say: Say) -> Results:
        path = export_vectors(Path(self.of), vectors=self.vectors, output=out, platforms=self.platforms)
        say(f"{path.name} for {', '.join(self.platforms)}")
        return {"version": path.name, "bytes": sum(p.stat().st_size for p in path.rglob("*") if p.is_file())}


@chz.chz
class Funnel(Stage):
    """A funnel in this stage's folder `funnel`, with copies of all its parts."""

    config: FunnelConfig = chz.field(doc="its paths name earlier stages")
    examples: TableConfig | None = chz.field(
        default=None, doc="a row for each user that its page offers; columns that no part reads are left out"
    )

    def run(self, *, out: Path, say: Say) -> Results:
        users = [] if self.examples is None else self.examples.make().to_pylist()
        versions = build_funnel(self.config, output=out / FUNNEL, examples=users)
        say(f"{', '.join(self.config.channels)} -> {', '.join(self.config.stages()[len(self.config.channels) :])}")
        return {**versions, "bytes": sum(p.stat().st_size for p in (out / FUNNEL).rglob("*") if p.is_file())}


@chz.chz
class Replay(Stage):
    """Requests of the mall's log through a funnel, against its ranker over all listings; see serve/replay.py."""

    of: str = chz.field(doc="folder of a funnel, such as @funnel/funnel")
    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "test"
    history: int = chz.field(default=50, doc="past actions that a request brings, the newest")
    most: int = chz.field(default=300, doc="requests, evenly spread over the users")

    def run(self, *, out: Path, say: Say) -> Results:
        funnel = open_funnel(Path(self.of))
        found = replay(funnel, mall=self.mall, split=self.split, history=self.history, most=self.most, say=say)
        write_report(found, out=out, funnel=funnel)
        return found.figures
