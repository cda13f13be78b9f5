"""python -m serve neighbours: item-to-item lists by content."""

import argparse
from pathlib import Path

from serve.arguments import positive, words

EPILOG = """examples:
  python -m serve neighbours vectors --output alike.parquet
  python -m serve neighbours vectors --output alike.npy --attributes items.parquet --same category --within price=0.3
  python -m serve neighbours pages --queries videos --output items_of_videos.npy --count 1 --least 0.5"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "neighbours",
        help="write for each item what is most like it, within category and price",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.description = (
        "Exact, by cosine. OUTPUT.parquet has {id, neighbours, cosine}, as many neighbours as there are; OUTPUT.npy "
        "has a row per whole-number id, 0 past the end, which HardNegatives and ExpandHistory read."
    )
    parser.add_argument("vectors", type=Path, help="items: a folder or file that embed wrote")
    parser.add_argument("--output", type=Path, required=True, help="a .parquet or .npy file")
    parser.add_argument("--queries", type=Path, help="vectors that ask, of another domain (default: the items)")
    parser.add_argument("--count", type=positive, default=50, help="neighbours of each (default: %(default)s)")
    parser.add_argument("--attributes", type=Path, help="Parquet file with a column id and the items' attributes")
    parser.add_argument("--same", type=words, default=(), metavar="A,B", help="attributes that must be equal")
    parser.add_argument(
        "--within", type=_share_of, action="append", default=[], metavar="PRICE=0.3", help="may differ by that share"
    )
    parser.add_argument("--least", type=float, default=-1.0, help="least cosine (default: any)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from serve.neighbours import write_neighbours

    done = write_neighbours(
        args.vectors,
        output=args.output,
        queries=args.queries,
        count=args.count,
        attributes=args.attributes,
        same=args.same,
        within=dict(args.within),
        least=args.least,
    )
    print(
        f"wrote {args.output}: {done['rows']:,} rows with {done['neighbours']:.1f} neighbours on average, "
        f"{done['alone']:,} with none"
    )


def _share_of(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not name or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not an attribute with a share, such as price=0.3")
    return name, value
