"""python -m serve rank: a funnel's answers to a file of requests."""

import argparse
import json
from pathlib import Path
from typing import Any

from data.errors import UserError


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("rank", help="answer a file of requests by a funnel: retrieve, rank, decide")
    parser.description = (
        "A row per item of each page, in the order of the requests, with its scores by stage and the channels that "
        "found it. A request that cannot be answered is named in OUTPUT.rejects.jsonl."
    )
    parser.add_argument("funnel", type=Path, help="folder that a Funnel stage wrote")
    parser.add_argument(
        "--requests",
        type=Path,
        required=True,
        help="a Parquet file, a folder of them or a glob: a column for each field of the user, and where wanted "
        "candidates, item, vector, k, shown",
    )
    parser.add_argument("--output", type=Path, required=True, help="the Parquet file to write")
    parser.add_argument("--id", help="column to copy as `request` (default: the place among the requests)")
    parser.add_argument("--k", type=int, help="items of a page (default: as the funnel says)")
    parser.add_argument("--where", type=_filter, help='a filter as JSON, such as \'{"category": ["shoes"]}\'')
    parser.add_argument("--skip", type=_words, default=(), help="stages to leave out, such as diversity,auction")
    parser.add_argument("--explain", action="store_true", help="also a row for each candidate dropped, and why")
    parser.add_argument("--max-rejects", type=float, default=0.01, help="share of requests (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="requests at once (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from serve.funnel import open_funnel
    from serve.rank_parquet import rank_parquet

    if args.threads < 1 or not 0 <= args.max_rejects <= 1:
        raise UserError("--threads is 1 or more, --max-rejects a share from 0 to 1")
    funnel = open_funnel(args.funnel)
    done = rank_parquet(
        funnel,
        requests=args.requests,
        output=args.output,
        k=args.k,
        where=args.where,
        skip=frozenset(args.skip),
        explain=args.explain,
        id=args.id,
        max_rejects=args.max_rejects,
        threads=args.threads,
    )
    rate = done.requests / max(done.seconds, 1e-9)
    print(
        f"wrote {args.output}: {done.items:,} items for {done.requests:,} requests in {done.seconds:.1f} s "
        f"({rate:,.0f} requests/s)"
    )
    if done.rejects is not None:
        print(f"{done.rejected:,} requests could not be answered; they are named in {done.rejects}")


def _filter(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from error


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
