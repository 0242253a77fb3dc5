"""The machine and versions under a measurement; a figure without them says nothing."""

import os
import platform
import subprocess
from pathlib import Path

import torch

from cbtalk import _native

_ROOT = Path(__file__).parent.parent


def header() -> dict[str, str | int | bool]:
    """What a reader needs to judge or repeat the figures."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torch cpu level": torch.backends.cpu.get_cpu_capability(),
        "cbtalk cpu level": _native.cpu_level() or str(_native.why_not_cpp()),
        "python": platform.python_version(),
        "commit": _git("rev-parse", "--short", "HEAD") or "not a git checkout",
        "uncommitted changes": bool(_git("status", "--porcelain")),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False)
    return result.stdout.strip()
