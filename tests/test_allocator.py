"""Memory that a process has freed is kept for reuse, until it is returned."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Blocks of 64 KiB, the last of which stays: those before it do not go back to the system by themselves.
PROGRAM = """
import sys
from pathlib import Path
from cbtalk.allocator import keep_freed_memory, return_freed_memory
def resident_kib():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmRSS"))
if not keep_freed_memory():
    print("no glibc")
    sys.exit()
kept, before = [], resident_kib()
for _ in range(5):
    blocks = [bytearray(b"x" * (1 << 16)) for _ in range(1000)]
    kept.append(blocks[-1])
    blocks.clear()
if sys.argv[1] == "returned":
    return_freed_memory()
print((resident_kib() - before) >> 10)
"""


def growth(*arguments: str) -> int:
    """MiB that the program has more in the end."""
    result = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    if result.stdout.strip() == "no glibc":
        pytest.skip("there is no glibc")
    return int(result.stdout)


def test_freed_memory_is_kept_until_it_is_returned() -> None:
    assert growth("kept") > 50
    assert growth("returned") < 5
