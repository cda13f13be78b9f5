"""python -m serve export | calibrate | score | embed | index: from a trained workdir to scores and indexes."""

import argparse
import os
import sys
from pathlib import Path

from data.cluster import add_engine, chosen_engine
from data.errors import UserError
from serve import cli_features, cli_index, cli_neighbours, cli_rank, cli_recommend, cli_up
from serve.arguments import add_step, positive, share, words

PLATFORMS = ("cpu", "cuda", "tpu")
EPILOG = """examples:
  python -m serve export runs/din                           runs/din/export/<version>, for cpu, cuda and tpu
  python -m serve calibrate runs/din                        runs/din/calibration.json, with a reliability plot beside
  python -m serve export runs/din --calibration runs/din/calibration.json
  python -m serve score runs/din --input logs/ --output scores.parquet --columns request,item
  python -m serve score runs/din/export --input x.parquet --output y.parquet --resume
  python -m serve score runs/din --input logs/ --output scores.parquet --engine ray --workers 8
  python -m serve embed runs/two_tower --input items/ --output vectors      only what is new or changed since
  python -m serve embed runs/two_tower --source test/corpus --output items.parquet
  python -m serve index vectors --output runs/index
  python -m serve index runs/two_tower --source test/corpus --output runs/index
exit codes: 0 done, 2 wrong input or command, 3 too many rejected rows"""


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    prepare_environment()
    try:
        args.run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m serve",
        description="Serve what python -m train wrote: a workdir is all that is needed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _export(commands.add_parser("export", help="write an artefact that needs none of our model code"))
    _calibrate(commands.add_parser("calibrate", help="fit a map to calibrated probabilities on held-out rows"))
    _score(commands.add_parser("score", help="score Parquet rows by a workdir or an artefact"))
    _embed(commands.add_parser("embed", help="write the vectors of a source"))
    cli_index.add(commands)
    cli_features.add(commands)
    cli_neighbours.add(commands)
    cli_rank.add(commands)
    cli_recommend.add(commands)
    cli_up.add(commands)
    return top


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=Path)
    parser.add_argument(
        "--output", type=Path, help="folder of versions (default: WORKDIR/export, or WORKDIR/export-FORMAT)"
    )
    add_step(parser)
    parser.add_argument("--platforms", type=words, default=PLATFORMS, metavar="cpu,cuda,tpu")
    parser.add_argument("--calibration", type=Path, help="what calibrate wrote; the artefact applies it")
    parser.add_argument(
        "--request", action="store_true", help="add a program for one user and many candidates, the user's part once"
    )
    parser.add_argument(
        "--vectors", type=words, help="export these outputs as one vector, such as query: what a funnel searches by"
    )
    parser.add_argument(
        "--format",
        choices=("stablehlo", "onnx", "savedmodel"),
        default="stablehlo",
        help="for another runtime, see docs/export.md (default: %(default)s, for jax)",
    )
    parser.set_defaults(run=run_export)


def _calibrate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Fits on a random half of the rows and measures on the other half: expected calibration error and log loss, "
        "before and after. Negatives that training left out are corrected by the task (task.negativeshare) instead."
    )
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--method", choices=("temperature", "isotonic"), default="temperature")
    parser.add_argument("--source", default="valid", help="a source of the experiment (default: %(default)s)")
    parser.add_argument("--score", default="score", help="the prediction to calibrate (default: %(default)s)")
    parser.add_argument("--label", help="what it predicts (default: the task's label)")
    parser.add_argument("--output", type=Path, help="JSON to write (default: WORKDIR/calibration.json)")
    add_step(parser)
    parser.set_defaults(run=run_calibrate)


def _score(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Rows keep their order and number: a row that cannot be encoded gets a null score and a line in "
        "OUTPUT.rejects.jsonl. The output appears when it is whole."
    )
    parser.add_argument("model", type=Path, help="a workdir, or an exported artefact")
    parser.add_argument("--input", type=Path, required=True, help="a Parquet file or a folder of them")
    parser.add_argument("--output", type=Path, required=True, help="the Parquet file to write")
    add_step(parser)
    parser.add_argument("--batch", type=positive, default=8192, help="rows a call (default: %(default)s)")
    parser.add_argument("--columns", type=words, default=(), help="input columns to copy, such as request,item")
    parser.add_argument("--separator", help="splits strings where the model takes lists, such as ^")
    parser.add_argument(
        "--max-rejects", type=share, default=0.01, help="share of rows that may be rejected (default: %(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="go on where a killed run with the same words stopped")
    add_engine(parser)
    parser.set_defaults(run=run_score)


def _embed(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A folder of shards holds {id, vector, norm} and a manifest. The same call again computes only the items that "
        "are new or changed since, drops those that are gone, and goes on where a killed one stopped; another model "
        "embeds all anew. A row that cannot be encoded is left out and named in OUTPUT.rejects.jsonl; of an id that "
        "stands twice the first row stays."
    )
    parser.add_argument("workdir", type=Path)
    rows = parser.add_mutually_exclusive_group(required=True)
    rows.add_argument("--input", type=Path, help="raw items: a Parquet file, a folder of them or a glob")
    rows.add_argument("--source", help="train, or an evaluator of the experiment, or one of its sources")
    parser.add_argument(
        "--output", type=Path, required=True, help="a folder of shards; of a source also one .parquet or .npz file"
    )
    add_step(parser)
    parser.add_argument("--id", default="item", help="column of the rows that names them (default: %(default)s)")
    parser.add_argument(
        "--vectors", type=words, default=("item",), help="outputs of the model, joined end to end (default: item)"
    )
    parser.add_argument("--batch", type=positive, default=1024, help="rows a call (default: %(default)s)")
    raw = parser.add_argument_group("raw items")
    raw.add_argument(
        "--format", choices=("parquet", "arrayrecord"), default="parquet", help="of the shards (default: %(default)s)"
    )
    raw.add_argument("--separator", help="splits strings where the model takes lists, such as ^")
    raw.add_argument(
        "--missing",
        choices=("reject", "keep"),
        default="reject",
        help="an item without a picture or without words: reject it, or keep it for a model that reads what there is",
    )
    raw.add_argument(
        "--max-rejects", type=share, default=0.01, help="share of rows that may be rejected (default: %(default)s)"
    )
    add_engine(parser)
    parser.set_defaults(run=run_embed)


def run_export(args: argparse.Namespace) -> None:
    if args.format != "stablehlo":
        _export_elsewhere(args)
        return
    from serve.export import export, export_vectors

    if args.vectors:
        if args.request or args.calibration:
            raise UserError("--vectors exports a vector; --request and --calibration are of scores")
        path = export_vectors(
            args.workdir, vectors=args.vectors, output=args.output, step=args.step, platforms=args.platforms
        )
        print(f"exported {path} for {', '.join(args.platforms)}")
        return
    path = export(
        args.workdir,
        output=args.output,
        step=args.step,
        platforms=args.platforms,
        calibration=args.calibration,
        request=args.request,
    )
    print(f"exported {path} for {', '.join(args.platforms)}")


def _export_elsewhere(args: argparse.Namespace) -> None:
    if args.request or args.vectors or args.platforms != PLATFORMS:
        raise UserError(
            f"--request, --vectors and --platforms are of artefacts for jax; leave them or --format {args.format} out"
        )
    from serve.targets.base import export_target, target_of

    done = export_target(
        args.workdir,
        target=target_of(args.format),
        output=args.output,
        step=args.step,
        calibration=args.calibration,
    )
    print(f"exported {done.path}; its outputs are within {done.error:.0e} of the model's")


def run_calibrate(args: argparse.Namespace) -> None:
    from serve.commands import calibrate_source

    output = args.output or args.workdir / "calibration.json"
    calibrate_source(
        args.workdir,
        output=output,
        source=args.source,
        method=args.method,
        step=args.step,
        score=args.score,
        label=args.label,
    )
    print(f"wrote {output} and {output.with_suffix('.html')}")


def run_score(args: argparse.Namespace) -> None:
    from serve.commands import score_parquet

    done = score_parquet(
        args.model,
        input=args.input,
        output=args.output,
        step=args.step,
        batch=args.batch,
        columns=args.columns,
        separator=args.separator,
        max_rejects=args.max_rejects,
        resume=args.resume,
        cluster=chosen_engine(args),
    )
    rate = done.rows / max(done.seconds, 1e-9)
    print(f"wrote {done.output}: {done.rows:,} rows in {done.seconds:.1f} s ({rate:,.0f} rows/s)")
    if done.rejects is not None:
        print(f"{done.rejected:,} rows were rejected and have a null score; they are named in {done.rejects}")


def run_embed(args: argparse.Namespace) -> None:
    from serve.commands import embed_parquet, embed_source

    common = {"output": args.output, "step": args.step, "id": args.id, "vectors": args.vectors, "batch": args.batch}
    cluster = chosen_engine(args)
    if args.source is not None:
        if cluster is not None:
            raise UserError("--engine ray embeds the files of --input; the rows of a --source are embedded here")
        figures = embed_source(args.workdir, source=args.source, **common)
        print(f"wrote {args.output}: {figures['rows']:,} vectors of {figures['dim']}")
        return
    done = embed_parquet(
        args.workdir,
        input=args.input,
        format=args.format,
        separator=args.separator,
        missing=args.missing,
        max_rejects=args.max_rejects,
        cluster=cluster,
        **common,
    )
    print(
        f"wrote {args.output}: {done.rows:,} vectors of {done.dim}; {done.new:,} new, {done.changed:,} changed, "
        f"{done.kept:,} kept, {done.removed:,} removed"
    )
    if done.repeated:
        print(f"{done.repeated:,} rows repeat an id and were left out; the first row of an id stays")
    if done.rejected:
        print(f"{done.rejected:,} rows were rejected")
    if done.rejects is not None:
        print(f"what was left out is named in {done.rejects}")


def prepare_environment() -> None:
    """What must be set before jax is imported."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "adloom" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


if __name__ == "__main__":
    sys.exit(main())
