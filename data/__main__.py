"""python -m data stats PATH [--label NAME]          what lies in Parquet files, as a feature file to start from
python -m data vocab FILE.py PATH --folder DIR        vocabularies of the FEATURES declared in FILE.py
python -m data tokens PATH --columns title --size 8000 --target DIR/title.json    a tokenizer of one's own texts
python -m data convert FILE.csv OUT.parquet           CSV to Parquet, malformed lines counted and named
python -m data behaviours LOG.parquet --output CLEAN.parquet --dictionary DICT.json    a log without noise and machines
python -m data spu ITEMS.parquet --output SPU.parquet [--previous YESTERDAY.parquet]    which listings are one product
python -m data build NAME --manual DIR --out DIR      one public data set from the files its owner publishes
python -m data build --list                           the data sets known, whose they are and their configs
python -m data build mall --folder DIR [a=b ...]      the simulated mall
python -m data show NAME [a=b ...]                    tables and pictures of a data set

stats, vocab, convert and build take --engine ray: the workers of a cluster, the same result.
"""

import argparse
import importlib
import logging
import pkgutil
import runpy
import sys
from difflib import get_close_matches
from pathlib import Path

import data.builders
from data import cli_behaviours
from data.cluster import add_engine, chosen_engine
from data.errors import UserError


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(
        required=True, metavar="stats | vocab | tokens | convert | behaviours | spu | build | show"
    )
    stats = commands.add_parser("stats", help="print a proposed feature file")
    stats.add_argument("path")
    stats.add_argument("--label", help="label column, where its name does not say so")
    add_engine(stats)
    stats.set_defaults(run=_stats)
    vocab = commands.add_parser("vocab", help="build vocabularies")
    vocab.add_argument("features", help="Python file that defines FEATURES")
    vocab.add_argument("path")
    vocab.add_argument("--folder", required=True)
    vocab.add_argument("--floor", type=int, default=1, help="a value seen less often is unknown")
    vocab.add_argument("--most", type=int, help="keep the most frequent alone")
    vocab.add_argument("--separator", help="splits strings that hold lists")
    add_engine(vocab)
    vocab.set_defaults(run=_vocab)
    tokens = commands.add_parser("tokens", help="learn a tokenizer")
    tokens.add_argument("path")
    tokens.add_argument("--columns", nargs="+", required=True)
    tokens.add_argument("--size", type=int, default=8000)
    tokens.add_argument("--target", required=True, help="file to write, beside the vocabularies")
    tokens.set_defaults(run=_tokens)
    convert = commands.add_parser("convert", help="CSV to Parquet")
    convert.add_argument("source")
    convert.add_argument("target")
    convert.add_argument("--delimiter", default=",")
    convert.add_argument("--key", help="column whose values must differ; later rows are set aside")
    convert.add_argument("--max-rejects", type=float, default=0.01)
    add_engine(convert)
    convert.set_defaults(run=_convert)
    cli_behaviours.add(commands)
    spu = commands.add_parser("spu", help="find the listings of one product")
    spu.add_argument("path", help="Parquet or Arrow file with id, category, brand and title of each listing")
    spu.add_argument("--output", required=True, help="Parquet file to write: id, spu")
    spu.add_argument("--previous", help="what this command wrote the day before, whose numbers stay")
    spu.add_argument("--threshold", type=float, default=0.9, help="cosine from which listings are one product")
    spu.add_argument("--vector", help="column of content vectors, half of the comparison")
    spu.add_argument("--attributes", nargs="*", default=(), help="columns that must not differ where both are given")
    for name in ("id", "category", "brand", "title"):
        spu.add_argument(f"--{name}", default=name, help=f"column of the {name}, where it has another name")
    spu.set_defaults(run=_spu)
    build = commands.add_parser("build", help="build a data set")
    build.add_argument("name", nargs="?")
    build.add_argument("--list", action="store_true", help="name the data sets and leave")
    build.add_argument("--manual", help="folder with the files of the release")
    build.add_argument("--out", help="folder under which the data set shall lie")
    build.add_argument("--config", help="variant of the data set")
    build.add_argument("--max-rejects", type=float, default=0.01, help="share of malformed rows allowed")
    build.add_argument("--folder", help="where the mall shall lie")
    build.add_argument("options", nargs="*", metavar="a=b", help="options of the mall")
    add_engine(build)
    build.set_defaults(run=_build)
    for name, run in (("show", _show),):
        command = commands.add_parser(name, help=f"{name} a data set")
        command.add_argument("name")
        command.add_argument("--folder", help="where the data set lies or shall lie")
        command.add_argument("options", nargs="*", metavar="a=b", help="options of that data set")
        command.set_defaults(run=run)
    return parser


def _stats(arguments: argparse.Namespace) -> None:
    from data.propose import propose
    from data.stats import measure

    print(propose(measure(arguments.path, label=arguments.label, cluster=chosen_engine(arguments))), end="")


def _vocab(arguments: argparse.Namespace) -> None:
    from data.vocabulary import build

    features = runpy.run_path(arguments.features).get("FEATURES")
    if features is None:
        raise UserError(f"{arguments.features} defines no FEATURES")
    made = build(
        arguments.path,
        features=features,
        folder=arguments.folder,
        floor=arguments.floor,
        most=arguments.most,
        separator=arguments.separator,
        cluster=chosen_engine(arguments),
    )
    for name in made:
        print(f"{name}: {len(made[name])} values, rows={made[name].rows}")


def _tokens(arguments: argparse.Namespace) -> None:
    from data.tokenizer import learn

    made = learn(arguments.path, columns=tuple(arguments.columns), size=arguments.size, target=arguments.target)
    print(f"{arguments.target}: {made.get_vocab_size()} tokens")


def _convert(arguments: argparse.Namespace) -> None:
    from data.convert import convert

    rejects = convert(
        arguments.source,
        target=arguments.target,
        delimiter=arguments.delimiter,
        key=arguments.key,
        max_rejects=arguments.max_rejects,
        cluster=chosen_engine(arguments),
    )
    for line in [*rejects.summary(), *rejects.first()]:
        print(line)


def _spu(arguments: argparse.Namespace) -> None:
    from data.spu import Columns, build

    named = {name: getattr(arguments, name) for name in ("id", "category", "brand", "title", "vector")}
    counted = build(
        Path(arguments.path),
        columns=Columns(**named, attributes=tuple(arguments.attributes)),
        output=Path(arguments.output),
        previous=Path(arguments.previous) if arguments.previous else None,
        threshold=arguments.threshold,
    )
    for name, count in counted.items():
        print(f"{name.replace('_', ' ')}: {count:,}")


def _build(arguments: argparse.Namespace) -> None:
    cluster = chosen_engine(arguments)
    if arguments.name == "mall":
        if cluster is not None:
            raise UserError("the mall is drawn by one process; leave --engine out")
        importlib.import_module("data.mall.write").main(arguments.folder, arguments.options)
        return
    from data.builders import base

    if arguments.list:
        print(base.listing())
        return
    if arguments.name is None or arguments.manual is None or arguments.out is None:
        raise UserError("give a name, --manual and --out; python -m data build --list names the data sets")
    path = base.build(
        arguments.name,
        manual=arguments.manual,
        out=arguments.out,
        config=arguments.config,
        max_rejects=arguments.max_rejects,
        cluster=cluster,
    )
    print(f"{path}\n{base.table(path)}")


def _show(arguments: argparse.Namespace) -> None:
    module = _module(arguments.name, "show" if arguments.name == "mall" else None)
    (module.main if arguments.name == "mall" else module.show)(arguments.folder, arguments.options)


def _module(name: str, part: str | None):
    """The module that makes the data set `name`."""
    known = ["mall", *(module.name for module in pkgutil.iter_modules([str(Path(data.builders.__file__).parent)]))]
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"no data set {name!r}; {hint}")
    return importlib.import_module(f"data.mall.{part}" if part else f"data.builders.{name}")


if __name__ == "__main__":
    sys.exit(main())
