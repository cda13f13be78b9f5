"""python -m serve up: answers requests over HTTP until it is told to stop."""

import argparse
import logging
import os
import resource
from pathlib import Path
from typing import Any

from data.errors import UserError

TOKEN = "ADLOOM_TOKEN"


def add(commands: Any) -> None:
    parser = commands.add_parser("up", help="answer requests over HTTP: rank, retrieve, score")
    parser.description = (
        "Serves an artefact, a workdir's export, an index or a funnel: the Open Inference protocol under /v2, raw "
        "users and items under /v1, /metrics, and /docs, which describes all. A newer version in the same place is "
        f"taken up without a dropped request. The token is read from --token-file or the environment's {TOKEN}."
    )
    parser.add_argument("path", type=Path, help="an artefact, a workdir, an index or a funnel's folder")
    parser.add_argument("--index", type=Path, help="index that /v1/retrieve searches beside a model")
    parser.add_argument("--queries", type=Path, help="artefact of export --vectors query: searches for a raw user")
    parser.add_argument("--read-only", action="store_true", help="take no updates of a live index; others may")
    parser.add_argument("--name", help="of the model under /v2/models (default: its class)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--token-file", type=Path, help="file that holds the bearer token which clients must send")
    parser.add_argument("--compile-cache", type=Path, help="folder of compiled programs (default: in the user's cache)")
    for flag, _, what in (*SETTINGS, *LIMITS):
        parser.add_argument("--" + flag.replace("_", "-"), type=_number, help=what, metavar="N")
    parser.set_defaults(run=run_up)


SETTINGS = (
    ("max_batch", int, "most rows in one call of the device (default: 1024)"),
    ("threads", int, "calls of the device at once (default: 2)"),
    ("cores", int, "processor cores of one call of the device (default: all, divided by --threads)"),
    ("window_ms", float, "wait for more rows, where others already wait (default: 1)"),
    ("watch", float, "seconds between looks for a newer version, 0 never (default: 2)"),
    ("drain", float, "seconds of serving on while not ready, after SIGTERM (default: 1)"),
    ("finish", float, "seconds for running requests to finish after that (default: 30)"),
)
LIMITS = (
    ("body_mib", float, "largest body in MiB (default: 8)"),
    ("rows", int, "most rows, candidates or vectors in a request (default: 4096)"),
    ("k", int, "most neighbours of a search (default: 1000)"),
    ("waiting", int, "requests that may wait for the device (default: 128)"),
    ("request_seconds", float, "from the whole body to the answer (default: 5)"),
    ("body_seconds", float, "for a client to send its body (default: 10)"),
    ("head_seconds", float, "for a client to send a head or to take its answer (default: 10)"),
    ("idle_seconds", float, "between two requests of a connection (default: 30)"),
    ("connections", int, "open at once (default: 4096)"),
)
NAMES = {"window_ms": "window_seconds", "watch": "watch_seconds", "drain": "drain_seconds", "finish": "finish_seconds"}


def run_up(args: argparse.Namespace) -> None:
    config = config_of(args)
    share_cores(config)
    try:
        from serve.up.run import run
    except ImportError as error:
        raise UserError(f"serving over HTTP needs {error.name or 'more'}; pip install 'adloom[up]'") from error
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    use_compile_cache(args.compile_cache)
    _open_files(config.limits.connections)
    run(config, host=args.host, port=args.port, say=lambda text: print(text, flush=True))


def config_of(args: argparse.Namespace) -> Any:
    from serve.up.config import Limits, Up

    def given(flags: Any) -> dict[str, Any]:
        found = {flag: kind(getattr(args, flag)) for flag, kind, _ in flags if getattr(args, flag) is not None}
        if "window_ms" in found:
            found["window_ms"] /= 1000
        return {NAMES.get(flag, flag): value for flag, value in found.items()}

    try:
        limits = Limits(**given(LIMITS))
        return Up(
            path=args.path,
            index=args.index,
            queries=args.queries,
            read_only=args.read_only,
            name=args.name,
            token=_token(args.token_file),
            limits=limits,
            **given(SETTINGS),
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def _token(file: Path | None) -> str | None:
    if file is None:
        token = os.environ.get(TOKEN)
        if token is not None and not token.strip():
            raise UserError(f"{TOKEN} is set but empty; unset it, or give it a token")
    else:
        token = file.read_text()
    if token is None:
        return None
    token = token.strip()
    if not token or not token.isascii() or any(c.isspace() for c in token):
        raise UserError(f"{file or TOKEN} must hold one token of ASCII characters without blanks")
    return token


def use_compile_cache(folder: Path | None) -> None:
    """Programs that a server compiles lie apart from those of training, so that neither crowds the other out."""
    import jax

    chosen = folder or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "adloom" / "up"
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def share_cores(config: Any) -> None:
    """Calls that run side by side, each on its own cores, answer more requests than calls that share all of them.

    XLA's client asks the environment when it begins, so this comes before all that may begin it.
    """
    os.environ.setdefault("NPROC", str(config.cores or max(1, len(os.sched_getaffinity(0)) // max(1, config.threads))))


def _open_files(connections: int) -> None:
    """A connection is an open file, and a shell allows few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256
    if soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return value
