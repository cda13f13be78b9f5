"""The command line keeps freed memory: a step's scratch arrays are not made of new pages every time."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from train.__main__ import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 24, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(touch())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone has the settings")
def test_a_freed_array_is_used_again_without_a_page_fault():
    def faults(word: str) -> int:
        done = subprocess.run([sys.executable, "-c", CODE, word], check=True, capture_output=True, text=True)
        return int(done.stdout)

    assert faults("keep") < 100 < faults("leave")
