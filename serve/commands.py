"""What the sub-commands do, for the command line and for pipelines alike."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chz

from data.cluster import Cluster
from data.errors import UserError
from data.features import Features, Image
from data.sources import SourceConfig
from serve.artifact import is_artifact, load
from serve.elsewhere import Opened, Workers
from serve.forward import Forward
from serve.inputs import Input, ParquetInput, SourceInput, needed
from serve.progress import Say
from serve.score import BATCH, Elsewhere, Scored, account, score
from serve.signature import Step

if TYPE_CHECKING:  # an artefact is scored without train/
    from data.vector_shards import Format
    from serve.changed import Missing
    from serve.embed_folder import Embedded
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
    cluster: Cluster | None = None,
    say: Say | None = None,
) -> Scored:
    """Scores raw rows by a workdir or an artefact, here or by the workers of a cluster."""
    raw = partial(_raw, model, input=input, step=step, batch=batch, columns=columns, separator=separator)
    elsewhere = None if cluster is None else Workers(cluster, partial(_to_score, raw, batch=batch))
    with nullcontext() if cluster is None else cluster.connected():
        opened, rows = raw()
        return _score(
            opened,
            rows,
            output=output,
            batch=batch,
            max_rejects=max_rejects,
            resume=resume,
            elsewhere=elsewhere,
            say=say,
        )


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


def _raw(
    model: Path, *, input: Path, step: Step, batch: int, columns: Sequence[str], separator: str | None
) -> tuple[_Opened, ParquetInput]:
    opened = _open(model, step=step, batch=batch)
    rows = ParquetInput(
        input, features=opened.features, vocabularies=opened.vocabularies, carry=columns, separator=separator
    )
    return opened, rows


def _to_score(raw: Callable[[], tuple[_Opened, ParquetInput]], *, batch: int) -> Opened:
    """Runs in a worker."""
    opened, rows = raw()
    return Opened(opened.forward, rows, account(opened.version, rows=rows, batch=batch))


def _score(
    opened: _Opened,
    rows: Input,
    *,
    output: Path,
    batch: int,
    max_rejects: float,
    resume: bool,
    elsewhere: Elsewhere | None = None,
    say: Say | None,
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
        elsewhere=elsewhere,
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
    from serve.embed import embed, forward_of, is_file, kind_of
    from serve.embed_folder import embed_folder
    from serve.trained import Trained, inputs_in

    if is_file(output):
        kind_of(output)
    trained = Trained(workdir, step=step)
    config = source if isinstance(source, SourceConfig) else trained.named_source(source)
    opened = config.make()
    if is_file(output):
        return embed(trained, source=opened, output=output, id=id, vectors=vectors, batch=batch, say=say)
    forward = forward_of(trained, vectors=vectors, offered=inputs_in(opened, features=trained.features), batch=batch)
    rows = SourceInput(opened, inputs=forward.inputs, name=type(config).__name__, carry=(id,))
    output.parent.mkdir(parents=True, exist_ok=True)
    done = embed_folder(
        forward,
        model=trained.version,
        outputs=vectors,
        rows=rows,
        id=id,
        features=needed(trained.features, inputs=forward.inputs),
        output=output,
        batch=batch,
        missing="keep",
        say=say,
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
    cluster: Cluster | None = None,
    say: Say | None = None,
) -> "Embedded":
    """Writes the vectors of raw items to a folder of shards; those that it holds already are not computed again."""
    from serve.embed import is_file
    from serve.embed_folder import embed_folder

    if is_file(output):
        raise UserError(f"{output}: raw items become a folder of shards; name one without an ending, such as vectors")
    raw = partial(
        _raw_items,
        workdir,
        input=input,
        output=output,
        step=step,
        id=id,
        vectors=vectors,
        batch=batch,
        separator=separator,
        missing=missing,
    )
    elsewhere = None if cluster is None else Workers(cluster, partial(_to_embed, raw))
    output.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if cluster is None else cluster.connected():
        forward, how = raw()
        return embed_folder(forward, **how, format=format, max_rejects=max_rejects, elsewhere=elsewhere, say=say)


def _raw_items(
    workdir: Path,
    *,
    input: Path,
    output: Path,
    step: Step,
    id: str,
    vectors: Sequence[str],
    batch: int,
    separator: str | None,
    missing: "Missing",
) -> tuple[Forward, dict[str, Any]]:
    """The forward, and how `prepare` and `embed_folder` shall take the items."""
    from serve.embed import forward_of
    from serve.trained import Trained

    trained = Trained(workdir, step=step)
    offered = trained.features.arrays(inputs_only=True)
    forward = forward_of(trained, vectors=vectors, offered=offered, batch=batch)
    features = needed(trained.features, inputs=forward.inputs)
    if missing == "keep":
        black = (chz.replace(f, absent="black") if isinstance(f, Image) else f for f in features.all)
        features = Features(all=tuple(black))
    vocabularies = trained.vocabularies
    rows = ParquetInput(input, features=features, vocabularies=vocabularies, carry=(id,), separator=separator)
    of = {"model": trained.version, "outputs": vectors, "rows": rows, "id": id, "features": features}
    return forward, {**of, "output": output, "batch": batch, "missing": missing}


def _to_embed(raw: Callable[[], tuple[Forward, dict[str, Any]]]) -> Opened:
    """Runs in a worker."""
    from serve.embed_folder import prepare

    forward, how = raw()
    work = prepare(forward, **how)
    return Opened(forward, work.changed, work.account)
