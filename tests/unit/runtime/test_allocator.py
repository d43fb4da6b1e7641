"""Memory of large blocks returns to the system, whatever sizes were freed before."""

import os
import platform
import subprocess
import sys

import pytest

from aurum.runtime.allocator import return_large_blocks

_PROGRAM = """
import sys, psutil
from aurum.runtime.allocator import return_large_blocks
if sys.argv[1] == "yes":
    assert return_large_blocks({})
bytearray(30_000_000)  # freed at once, upon which glibc maps only larger blocks
blocks = [bytearray(500_000) for _ in range(200)]
full = psutil.Process().memory_info().rss
del blocks[:-1]  # the last one keeps the heap from shrinking
print(full - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_blocks_return_to_the_system() -> None:
    # Without the call, the threshold is as glibc raises it, which it does not in every run
    environments: dict[str, dict[str, str]] = {"yes": {}, "no": {"MALLOC_MMAP_THRESHOLD_": "33554432"}}
    returned = {
        called: int(
            subprocess.run(
                [sys.executable, "-c", _PROGRAM, called], capture_output=True, check=True, env={**os.environ, **given}
            ).stdout
        )
        for called, given in environments.items()
    }
    assert returned["yes"] > 90_000_000
    assert returned["no"] < 50_000_000


def test_allocator_of_the_environment_stays() -> None:
    assert not return_large_blocks({"MALLOC_TRIM_THRESHOLD_": "1"})
