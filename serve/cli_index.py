"""python -m serve index: builds an index, and with one that is there says what it is, searches it or changes it."""

import argparse
import json
from pathlib import Path
from typing import Any

from data.errors import UserError
from serve.arguments import add_step, positive, share, words

EPILOG = """examples:
  python -m serve index vectors --output runs/index
  python -m serve index runs/two_tower --source test/corpus --output runs/index
  python -m serve index vectors --output runs/index --engine scann --recall 0.95 --queries users.npz
  python -m serve index vectors --output runs/index --engine live --attributes items.parquet
  python -m serve index runs/index --info
  python -m serve index runs/index --search users.npz --k 10 --where '{"price": {"max": 20}, "active": true}'
  python -m serve index runs/index --upsert new.npz --attributes new.parquet
  python -m serve index runs/index --delete sku-7,sku-9
  python -m serve index runs/index --merge"""
SHOWN = 5

# Options that only some actions read: given elsewhere they would be ignored, and are refused instead.
BUILDING = ("source", "id", "metric", "engine", "recall", "queries", "threads", "attributes", "attributes_id")
OPTIONS: dict[str, tuple[str, ...]] = {
    "output": BUILDING,
    "info": (),
    "search": ("k", "where", "write"),
    "upsert": ("attributes", "attributes_id"),
    "add": ("attributes", "attributes_id"),
    "delete": (),
    "merge": (),
}


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "index",
        help="build an index of vectors, search it, change it",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, help="vectors that embed wrote, or a workdir; else the folder of an index")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--output", type=Path, help="build an index into this folder")
    action.add_argument("--info", action="store_true", help="what the index is, once its checksums are found right")
    action.add_argument("--search", type=Path, metavar="QUERIES", help="the nearest of these vectors")
    action.add_argument("--upsert", type=Path, metavar="VECTORS", help="add items, replace those that are there")
    action.add_argument("--add", type=Path, metavar="VECTORS", help="add items, refuse those that are there")
    action.add_argument("--delete", metavar="IDS", help="ids with commas between, or @FILE with one a line")
    action.add_argument("--merge", action="store_true", help="make the updates part of the engine now")
    build = parser.add_argument_group("building")
    build.add_argument("--source", help="of a workdir: the source whose vectors are indexed, such as test/corpus")
    build.add_argument("--id", help="column of that source that names a row (default: item)")
    add_step(build)
    build.add_argument("--metric", choices=("dot", "cosine"), help="(default: dot)")
    build.add_argument("--engine", choices=("exact", "scann", "live"), help="(default: exact)")
    build.add_argument("--recall", type=share, help="at 10, that the settings of ScaNN are chosen for (default: 0.95)")
    build.add_argument("--queries", type=Path, help="vectors of what will be asked, to choose and to measure by")
    build.add_argument("--threads", type=positive, help="to build with (default: all cores)")
    items = parser.add_argument_group("building, and --upsert or --add")
    items.add_argument("--attributes", type=Path, help="Parquet file with a row per item, for filters")
    items.add_argument("--attributes-id", help="its column that names the item (default: id)")
    search = parser.add_argument_group("--search")
    search.add_argument("--k", type=positive, help="how many (default: 10)")
    search.add_argument("--where", type=_json, help="conditions as JSON: a value, a list of values, or a range")
    search.add_argument("--write", type=Path, help="Parquet file for query, rank, id and score (default: print some)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    action = next(name for name in OPTIONS if getattr(args, name) not in (None, False))
    given = {option for options in OPTIONS.values() for option in options if getattr(args, option) is not None}
    if foreign := sorted(given - set(OPTIONS[action])):
        raise UserError(f"--{foreign[0].replace('_', '-')} means nothing with --{action}; leave it out")
    {"output": _build, "info": _info, "search": _search, "merge": _merge}.get(action, _change)(args)


def _build(args: argparse.Namespace) -> None:
    from serve.index.command import index_source, index_vectors

    how: dict[str, Any] = {
        "output": args.output,
        "metric": args.metric or "dot",
        "engine": args.engine or "exact",
        "recall": args.recall,
        "queries": args.queries,
        "attributes": args.attributes,
        "id": args.attributes_id or "id",
        "threads": args.threads or 0,
        "say": print,
    }
    if args.source is None:
        figures = index_vectors(args.path, **how)
    else:
        figures = index_source(args.path, source=args.source, step=args.step, row_id=args.id or "item", **how)
    print(f"wrote {args.output}: {figures['rows']:,} vectors of {figures['dim']}")
    recall = "".join(f", recall at {k} {figures[f'recall@{k}']:.4f}" for k in (10, 100) if f"recall@{k}" in figures)
    print(f"engine {figures['engine']}{recall} ({figures['why']})")


def _info(args: argparse.Namespace) -> None:
    from serve.index.command import describe

    print(json.dumps(describe(args.path), indent=2))


def _search(args: argparse.Namespace) -> None:
    from serve.index.command import search_vectors

    table = search_vectors(args.path, queries=args.search, k=args.k or 10, where=args.where)
    if args.write is not None:
        import pyarrow.parquet as pq

        args.write.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, args.write)
        print(f"wrote {args.write}: {len(table):,} rows")
        return
    shown: dict[Any, list[str]] = {}
    for row in table.to_pylist():
        shown.setdefault(row["query"], []).append(f"{row['id']} ({row['score']:.4g})")
    for query, found in list(shown.items())[:SHOWN]:
        print(f"{query}: " + ", ".join(found))
    if len(shown) > SHOWN:
        print(f"and {len(shown) - SHOWN:,} more queries; --write FILE.parquet has all")


def _change(args: argparse.Namespace) -> None:
    from serve.index.command import change_index

    done = change_index(
        args.path,
        vectors=args.upsert or args.add,
        only_new=args.add is not None,
        attributes=args.attributes,
        id=args.attributes_id or "id",
        gone=() if args.delete is None else _ids(args.delete),
    )
    print(
        f"{args.path}: {done['added']:,} added, {done['replaced']:,} replaced, {done['deleted']:,} deleted, "
        f"{done['unknown']:,} unknown; {done['rows']:,} items"
    )


def _merge(args: argparse.Namespace) -> None:
    from serve.index.command import open_live

    with open_live(args.path, merge_by_itself=False) as index:
        index.merge()
        print(f"{args.path}: {len(index):,} items, engine {index.made['engine']} ({index.made['why']})")


def _ids(text: str) -> tuple[str, ...]:
    if not text.startswith("@"):
        return words(text)
    return tuple(line.strip() for line in Path(text[1:]).read_text().splitlines() if line.strip())


def _json(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object: {error}") from error
