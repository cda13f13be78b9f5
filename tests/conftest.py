"""Every test runs on four fake CPU devices, with warnings as errors and a compile cache on disk."""

import os
import pathlib
from typing import Any

# Before jax is imported: fewer threads than this and queued steps on fake devices dead-lock on small machines.
os.environ.setdefault("NPROC", "16")
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the suite's time goes into compiling what then runs once: compile fast rather than well.
for flag in ("--xla_force_host_platform_device_count=4", "--xla_backend_optimization_level=0"):
    if flag.split("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
ROOT = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


def group(item: pytest.Item) -> str:
    """Tests that share what they compile: those of one config in tests/contract, else those of one file."""
    values = getattr(item, "callspec", None)
    named = values and (values.params.get("name") or values.params.get("stem"))
    folder, file = item.path.parent.name, str(item.path.relative_to(ROOT))
    return f"config:{named}" if folder == "contract" and named else file


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One group after another, and each in one process when there are several (`-n 2 --dist loadgroup`)."""
    first = {g: k for k, g in reversed(list(enumerate(map(group, items))))}
    items.sort(key=lambda item: first[group(item)])
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """With a pytest that pytest-xdist does not know, groups are lost without a word and each process compiles all."""
    lost = [i for i in ids if "@" not in i]
    if lost and node.config.getvalue("dist") == "loadgroup":
        pytest.exit(f"pytest-xdist keeps no groups together with pytest {pytest.__version__}: {lost[0]}", returncode=4)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Compiled programs hold memory maps, of which a process may have 65,530; beyond that the compiler dies."""
    if nextitem is not None and group(item) != group(nextitem):
        jax.clear_caches()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def root() -> pathlib.Path:
    return ROOT


@pytest.fixture(scope="module")
def storable_tests():
    """Lets configs of this module name classes of the tests, which shipped code refuses."""
    from train import snapshot

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "PACKAGES", (*snapshot.PACKAGES, "tests"))
        yield
