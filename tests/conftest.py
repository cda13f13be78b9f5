"""Every test runs on four fake CPU devices, with warnings as errors and a compile cache on disk."""

import os
import pathlib

# Before jax is imported: fewer threads than this and queued steps on fake devices dead-lock on small machines.
os.environ.setdefault("NPROC", "16")
os.environ["JAX_PLATFORMS"] = "cpu"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4").strip()
ROOT = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


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
