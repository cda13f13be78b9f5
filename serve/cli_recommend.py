"""python -m serve recommend: the best unseen items of each user, one line a user."""

import argparse
from pathlib import Path

from serve.arguments import add_step, positive


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("recommend", help="write each user's best unseen items by a next-item model")
    parser.description = (
        "One line a user, `user item item ...`, best first, in the ids of the data. The history is all that the data "
        "hold of the user, validation events included, and none of it is recommended again."
    )
    parser.add_argument("model", type=Path, help="a workdir, or an exported artefact (which needs --data)")
    parser.add_argument("--users", type=Path, help="a file with one user a line (default: all)")
    parser.add_argument("--k", type=positive, default=20, help="items a user (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="the text file to write")
    parser.add_argument("--data", type=Path, help="another folder with sequences.txt, of the same items")
    add_step(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from serve.recommend import recommend

    done = recommend(args.model, output=args.output, users=args.users, k=args.k, data=args.data, step=args.step)
    print(f"wrote {args.output}: {done.items} items for each of {done.users:,} users")
