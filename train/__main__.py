"""python -m train [CONFIG] [--workdir D] [name.of.field=value ...]: parse, build, run; nothing else."""

import argparse
import ctypes
import os
import sys
from pathlib import Path

from data.errors import UserError

DESCRIPTION = """Train a config: on CPU, GPU or TPU, from scratch or from where its workdir stopped."""
EPILOG = """examples:
  python -m train                                          the whole funnel on the simulated mall
  python -m train configs/din_mall.py --workdir runs/din   one system; the same command resumes it
  python -m train configs/din_mall.py model.dim=32 steps=500
  python -m train configs/din_mall.py --show               print the resolved config, run nothing
  python -m train configs/bars_frappe.py --only dnn,fm     a part of a pipeline
  python -m train configs/din_mall.py --help               every field of that config
exit codes: 0 done or saved on request, 2 wrong config or command, 3 too many bad rows, 4 not finite, 5 disk full"""


def main(argv: list[str] | None = None) -> int:
    args, overrides = parse(sys.argv[1:] if argv is None else argv)
    prepare_environment(distributed=args.coordinator is not None)
    try:
        return run(args, overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("config", nargs="?", default="configs/quickstart.py", help="config file (default: %(default)s)")
    parser.add_argument("--workdir", type=Path, help="where everything is written (default: runs/<name of the config>)")
    parser.add_argument(
        "--fork", type=Path, metavar="NEW", help="copy the workdir to NEW and go on there with this config"
    )
    parser.add_argument("--only", metavar="A,B", help="of a pipeline: these stages, and what they need")
    parser.add_argument("--show", action="store_true", help="print the resolved config and stop")
    parser.add_argument("--help", "-h", action="store_true", help="this text; with a config, its fields too")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="train together with other processes")
    parser.add_argument("--process", type=int, default=0, metavar="I", help="number of this process")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="how many there are")
    args, rest = parser.parse_known_args(argv)
    # A first word with "=" is an override of the default config, not a file.
    if "=" in args.config:
        rest.insert(0, args.config)
        args.config = parser.get_default("config")
    wrong = [word for word in rest if "=" not in word or word.startswith("-")]
    if wrong:
        parser.error(f"{wrong[0]!r} is neither an option nor an override; overrides look like steps=500")
    if args.help:
        parser.print_help()
    args.given = any(not word.startswith("-") and "=" not in word for word in argv)
    return args, rest


def prepare_environment(*, distributed: bool) -> None:
    """What must be set before jax is imported."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "adloom" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    if distributed or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("NPROC", "16")  # fewer threads dead-lock several CPU devices
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Has glibc's malloc keep what a step frees: new pages of its scratch arrays cost a CPU step up to a fifth."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_max, arena_max = -1, -4, -8  # names of malloc.h
        for parameter, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, 2**31 - 1)):
            mallopt(parameter, value)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    from train.command import describe, help_text, only, read_config, run_config

    if args.help:
        if args.given:
            print(help_text(read_config(Path(args.config), [])))
        return 0
    config = read_config(Path(args.config), overrides)
    if args.only:
        config = only(config, args.only.split(","))
    if args.show:
        print(describe(config))
        return 0
    if args.coordinator:
        from train.distributed import join

        join(args.coordinator, process=args.process, processes=args.processes)
    workdir = args.workdir or Path("runs") / Path(args.config).stem
    return run_config(config, workdir=workdir, fork=args.fork)


if __name__ == "__main__":
    sys.exit(main())
