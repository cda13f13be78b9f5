"""What the sub-commands do, for the command line and for pipelines alike."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chz

from data.errors import UserError
from data.features import Features, Image
from data.sources import SourceConfig
from serve.artifact import is_artifact, load
from serve.files import staged
from serve.forward import Forward, Inputs
from serve.index import Metric, build
from serve.inputs import Input, ParquetInput, SourceInput, needed
from serve.progress import Say
from serve.score import BATCH, Scored, score
from serve.signature import Step

if TYPE_CHECKING:  # an artefact is scored without train/
    from data.vector_shards import Format
    from serve.changed import Missing
    from serve.embed_folder import Embedded
    from serve.trained import Trained
    from train.calibration import Method


def score_parquet(
    model: Path,
    *,
    input: Path,
    output: Path,
    step: Step = "best",
    batch: int = BATCH,
    columns: Sequence[str] = (),
    separator: str | None = None,
    max_rejects: float = 0.01,
    resume: bool = False,
    say: Say | None = None,
) -> Scored:
    """Scores raw rows by a workdir or an artefact."""
    opened = _open(model, step=step, batch=batch)
    rows = ParquetInput(
        input, features=opened.features, vocabularies=opened.vocabularies, carry=columns, separator=separator
    )
    return _score(opened, rows, output=output, batch=batch, max_rejects=max_rejects, resume=resume, say=say)


def score_source(
    model: Path,
    *,
    source: SourceConfig,
    output: Path,
    step: Step = "best",
    batch: int = BATCH,
    columns: Sequence[str] = (),
    resume: bool = False,
    say: Say | None = None,
) -> Scored:
    """Scores the encoded rows of a source by a workdir or an artefact."""
    opened = _open(model, step=step, batch=batch)
    rows = SourceInput(source.make(), inputs=opened.forward.inputs, name=type(source).__name__, carry=columns)
    return _score(opened, rows, output=output, batch=batch, max_rejects=0.0, resume=resume, say=say)


class _Opened:
    """What scoring asks of a model, wherever it comes from."""

    def __init__(self, forward: Forward, *, version: str, features: Features, vocabularies: Path | None):
        self.forward, self.version = forward, version
        self.features = needed(features, inputs=forward.inputs)
        self.vocabularies = vocabularies


def _open(model: Path, *, step: Step, batch: int) -> _Opened:
    if is_artifact(model):
        artifact = load(model, max_batch=batch)
        return _Opened(
            artifact.forward,
            version=artifact.version,
            features=artifact.features,
            vocabularies=artifact.vocabularies,
        )
    from serve.trained import Trained  # an artefact is scored without train/ and modules/

    trained = Trained(model, step=step)
    forward = trained.forward(max_batch=batch)
    return _Opened(forward, version=trained.version, features=trained.features, vocabularies=trained.vocabularies)


def _score(
    opened: _Opened, rows: Input, *, output: Path, batch: int, max_rejects: float, resume: bool, say: Say | None
) -> Scored:
    output.parent.mkdir(parents=True, exist_ok=True)
    return score(
        opened.forward,
        model=opened.version,
        rows=rows,
        output=output,
        batch=batch,
        max_rejects=max_rejects,
        resume=resume,
        say=say,
    )


def calibrate_source(
    workdir: Path,
    *,
    output: Path,
    source: str = "valid",
    method: "Method" = "temperature",
    step: Step = "best",
    score: str = "score",
    label: str | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Fits a calibration on a source that the workdir's experiment declares."""
    from serve.trained import declared_source
    from train.calibrate import calibrate
    from train.experiment import load_experiment

    rows = declared_source(load_experiment(workdir), name=source, workdir=workdir)
    return calibrate(workdir, output=output, source=rows, method=method, step=step, score=score, label=label, say=say)


def embed_source(
    workdir: Path,
    *,
    source: str | SourceConfig,
    output: Path,
    step: Step = "best",
    id: str = "item",
    vectors: Sequence[str] = ("item",),
    batch: int = 1024,
    say: Say | None = None,
) -> dict[str, int]:
    """Writes {id, vector} of every row of a source, given or declared by name in the workdir's experiment.

    `output` is one file or, without an ending, a folder of shards.
    """
    from serve.embed import embed, is_file, kind_of
    from serve.trained import Trained, inputs_in

    if is_file(output):
        kind_of(output)
    trained = Trained(workdir, step=step)
    config = source if isinstance(source, SourceConfig) else trained.named_source(source)
    opened = config.make()
    if is_file(output):
        return embed(trained, source=opened, output=output, id=id, vectors=vectors, batch=batch, say=say)
    offered = inputs_in(opened, features=trained.features)

    def rows(inputs: Inputs) -> tuple[Input, Features]:
        name = type(config).__name__
        return SourceInput(opened, inputs=inputs, name=name, carry=(id,)), needed(trained.features, inputs=inputs)

    done = _embed(
        trained, offered=offered, open=rows, output=output, id=id, vectors=vectors, batch=batch, missing="keep", say=say
    )
    return {name: value for name, value in asdict(done).items() if name != "rejects"}


def embed_parquet(
    workdir: Path,
    *,
    input: Path,
    output: Path,
    step: Step = "best",
    id: str = "item",
    vectors: Sequence[str] = ("item",),
    batch: int = 1024,
    separator: str | None = None,
    missing: "Missing" = "reject",
    max_rejects: float = 0.01,
    format: "Format" = "parquet",
    say: Say | None = None,
) -> "Embedded":
    """Writes the vectors of raw items to a folder of shards; those that it holds already are not computed again."""
    from serve.embed import is_file
    from serve.trained import Trained

    if is_file(output):
        raise UserError(f"{output}: raw items become a folder of shards; name one without an ending, such as vectors")
    trained = Trained(workdir, step=step)

    def rows(inputs: Inputs) -> tuple[Input, Features]:
        features = needed(trained.features, inputs=inputs)
        if missing == "keep":
            features = Features(
                all=tuple(chz.replace(f, absent="black") if isinstance(f, Image) else f for f in features.all)
            )
        return ParquetInput(
            input, features=features, vocabularies=trained.vocabularies, carry=(id,), separator=separator
        ), features

    return _embed(
        trained,
        offered=trained.features.arrays(inputs_only=True),
        open=rows,
        output=output,
        id=id,
        vectors=vectors,
        batch=batch,
        missing=missing,
        max_rejects=max_rejects,
        format=format,
        say=say,
    )


def _embed(
    trained: "Trained",
    *,
    offered: Inputs,
    open: Callable[[Inputs], tuple[Input, Features]],
    output: Path,
    id: str,
    vectors: Sequence[str],
    batch: int,
    missing: "Missing",
    max_rejects: float = 0.01,
    format: "Format" = "parquet",
    say: Say | None,
) -> "Embedded":
    """`open` makes the rows of the inputs that the vectors turn out to read."""
    from serve.embed import forward_of
    from serve.embed_folder import embed_folder

    forward = forward_of(trained, vectors=vectors, offered=offered, batch=batch)
    rows, features = open(forward.inputs)
    output.parent.mkdir(parents=True, exist_ok=True)
    return embed_folder(
        forward,
        model=trained.version,
        outputs=vectors,
        rows=rows,
        id=id,
        features=features,
        output=output,
        format=format,
        batch=batch,
        missing=missing,
        max_rejects=max_rejects,
        say=say,
    )


def index_vectors(vectors: Path, *, output: Path, metric: Metric = "dot") -> dict[str, int]:
    """Builds the index of a file or folder that `embed` wrote."""
    from data.vectors import read

    if not vectors.exists():
        raise UserError(f"{vectors}: there are no vectors; python -m serve embed WORKDIR writes them")
    ids, rows, model = read(vectors)
    build(rows, ids=ids, metric=metric, model=model).save(output)
    return {"rows": len(ids), "dim": rows.shape[1]}


def index_source(
    workdir: Path, *, source: str, output: Path, step: Step = "best", id: str = "item", metric: Metric = "dot"
) -> dict[str, int]:
    """Embeds a source that the workdir's experiment declares and builds its index."""
    with staged(output.parent) as work:
        vectors = work / "vectors.parquet"
        embed_source(workdir, source=source, output=vectors, step=step, id=id)
        return index_vectors(vectors, output=output, metric=metric)
