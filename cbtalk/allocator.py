"""Settings of the process's allocator for the memory of large tensors."""

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's mallopt


def keep_freed_memory() -> bool:
    """Have glibc reuse the memory of freed tensors instead of returning it to the system; False without glibc.

    By itself glibc maps every block above 32 MiB anew, and the system fills it with zeros, page by page: of the paper's
    model at batch 4 (67 MB a feature) on two Xeon cores, November 2026, that took 0.27 of 0.93 s a frame. It concerns
    the main thread alone, but the whole process: a program, not the library, decides.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
    return False


def return_freed_memory() -> None:
    """Have glibc return to the system what is free anywhere in its heap; what is needed next is taken anew.

    As blocks are of many sizes, the heap falls into ever more free pieces between those in use, and grows. This takes
    ten milliseconds or so and the next work a few more, so it is for now and then.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
