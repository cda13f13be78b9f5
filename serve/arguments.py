"""Words of the command line that several commands read alike."""

import argparse


def add_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--step", type=step, default="best", metavar="best|latest|N", help="checkpoint (default: %(default)s)"
    )


def words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return number


def step(text: str) -> int | str:
    if text in ("best", "latest"):
        return text
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither best, latest nor a step")
    return int(text)
