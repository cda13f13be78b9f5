"""python -m serve features: what is known of items, for request time."""

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("features", help="write a feature store of Parquet rows, for requests")
    parser.description = (
        "Raw columns by id. As a folder, read-only and mapped into memory; or into a Redis that many machines share, "
        "where the new rows become current in one step."
    )
    parser.add_argument("input", type=Path, help="a Parquet file, a folder of them or a glob: one row per item")
    parser.add_argument("--id", default="item", help="column that names a row (default: %(default)s)")
    parser.add_argument("--columns", type=_words, default=(), help="columns to keep (default: all)")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", type=Path, help="folder of the store")
    where.add_argument("--redis", metavar="redis://HOST:PORT/DB#NAME", help="a store in Redis (extra: redis)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from serve.features.tables import parquet_table

    table = parquet_table(args.input, columns=(args.id, *args.columns) if args.columns else ())
    if args.output is not None:
        from serve.features.arrow_store import build

        store = build(table, id=args.id, output=args.output)
        print(f"wrote {args.output}: {len(store):,} rows of {len(store.schema)} columns, version {store.version}")
    else:
        from serve.features.redis_store import write

        held = write(table, id=args.id, url=args.redis)
        print(f"wrote {held.name}: {len(held):,} rows of {len(held.schema)} columns, version {held.version}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
