"""Stages of a pipeline that serve what earlier stages trained; paths may be references such as "@encoder"."""

from pathlib import Path
from typing import Literal

import chz

from data.sources import SourceConfig
from serve.commands import embed_source, score_parquet, score_source
from serve.export import export
from serve.index.build import Engines
from serve.index.command import index_vectors
from serve.pack import PLATFORMS
from serve.score import BATCH
from train.pipeline import Results, Say, Stage


@chz.chz
class Embed(Stage):
    """Vectors of every row of a source; the next stage reads them as "@<this stage>/<name>"."""

    of: str = chz.field(doc="workdir of a training run, such as @encoder")
    source: SourceConfig
    name: str = chz.field(
        default="vectors.npz", doc="file in this stage's folder, .npz or .parquet; without an ending a folder of shards"
    )
    id: str = chz.field(default="item", doc="column of the source that names a row")
    vectors: tuple[str, ...] = chz.field(default=("item",), doc="outputs of the model, joined end to end")
    batch: int = 1024

    def run(self, *, out: Path, say: Say) -> Results:
        return embed_source(
            Path(self.of),
            source=self.source,
            output=out / self.name,
            id=self.id,
            vectors=self.vectors,
            batch=self.batch,
            say=say,
        )


@chz.chz
class Index(Stage):
    """An index in this stage's folder `index`."""

    of: str = chz.field(doc="file or folder of vectors, such as @items/vectors.npz")
    metric: Literal["dot", "cosine"] = "dot"
    engine: Engines = "exact"
    recall: float | None = chz.field(default=None, doc="at 10, that ScaNN's settings are chosen for")
    queries: str | None = chz.field(default=None, doc="vectors of what will be asked, to choose and measure by")
    attributes: str | None = chz.field(default=None, doc="Parquet file with a row per item, for filters")
    id: str = chz.field(default="id", doc="column of the attributes that names the items")

    def run(self, *, out: Path, say: Say) -> Results:
        done = index_vectors(
            Path(self.of),
            output=out / "index",
            metric=self.metric,
            engine=self.engine,
            recall=self.recall,
            queries=None if self.queries is None else Path(self.queries),
            attributes=None if self.attributes is None else Path(self.attributes),
            id=self.id,
            say=say,
        )
        say(f"{done['rows']:,} vectors, {done['engine']}: {done['why']}")
        return done


@chz.chz
class Export(Stage):
    """An artefact; later stages name it "@<this stage>"."""

    of: str = chz.field(doc="workdir of a training run, such as @tower")
    platforms: tuple[str, ...] = PLATFORMS
    step: Literal["best", "latest"] = "best"
    calibration: str | None = chz.field(
        default=None, doc="file of a Calibrate stage, such as @calibrated/calibration.json"
    )
    request: bool = chz.field(default=False, doc="add a program for one user and many candidates")

    def run(self, *, out: Path, say: Say) -> Results:
        calibration = None if self.calibration is None else Path(self.calibration)
        path = export(
            Path(self.of),
            output=out,
            step=self.step,
            platforms=self.platforms,
            calibration=calibration,
            request=self.request,
        )
        say(f"{path.name} for {', '.join(self.platforms)}")
        return {"version": path.name, "bytes": sum(p.stat().st_size for p in path.rglob("*") if p.is_file())}


@chz.chz
class Score(Stage):
    """Scores of a source or of Parquet rows, in this stage's file `scores.parquet`."""

    of: str = chz.field(doc="workdir or artefact, such as @export")
    source: SourceConfig | None = chz.field(default=None, doc="encoded rows to score")
    input: str | None = chz.field(default=None, doc="or a Parquet file or folder of raw rows")
    columns: tuple[str, ...] = chz.field(default=(), doc="columns to copy beside the scores")
    max_rejects: float = 0.01
    batch: int = BATCH

    @chz.validate
    def _one_input(self):
        if (self.source is None) == (self.input is None):
            raise ValueError("a Score stage takes a source or an input, one of the two")

    def run(self, *, out: Path, say: Say) -> Results:
        model, output = Path(self.of), out / "scores.parquet"
        if self.source is not None:
            done = score_source(
                model,
                source=self.source,
                output=output,
                batch=self.batch,
                columns=self.columns,
                resume=True,
                say=say,
            )
        else:
            done = score_parquet(
                model,
                input=Path(str(self.input)),
                output=output,
                batch=self.batch,
                columns=self.columns,
                max_rejects=self.max_rejects,
                resume=True,
                say=say,
            )
        say(f"{done.rows:,} rows, {done.rejected:,} rejected")
        return {"rows": done.rows, "rejected": done.rejected, "rows_per_second": done.rows / max(done.seconds, 1e-9)}
