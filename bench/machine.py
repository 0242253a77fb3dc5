"""The machine and versions under a measurement; a figure without them says nothing."""

import importlib.util
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

import torch

from cbtalk import _native

_ROOT = Path(__file__).parent.parent

Facts = dict[str, str | int | bool]


def header(device: str = "cpu") -> Facts:
    """Facts that a reader needs to judge or repeat the figures."""
    return {
        "device": device,
        **(_gpu() if device == "cuda" else {}),
        "cpu": _of_cpu("model name") or platform.processor() or platform.machine(),
        "cpu clock now": f"{_of_cpu('cpu MHz') or 'unknown'} MHz",
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torch cpu level": torch.backends.cpu.get_cpu_capability(),
        "cbtalk cpu level": _native.cpu_level() or str(_native.why_not_cpp()),
        "triton": _triton(),
        "compiler of cbtalk": _compiler(),
        "python": platform.python_version(),
        "month": time.strftime("%B %Y"),
        "load of others": f"{os.getloadavg()[0]:.1f}",  # the last minute's: what it takes away, no ratio gives back
        "commit": _output("git", "-C", str(_ROOT), "rev-parse", "--short", "HEAD") or "not a git checkout",
        "uncommitted changes": bool(_output("git", "-C", str(_ROOT), "status", "--porcelain")),
    }


def _gpu() -> Facts:
    wanted = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem"
    found = _output("nvidia-smi", f"--query-gpu={wanted}", "--format=csv,noheader", "--id=0").split(", ")
    names = ("driver", "gpu clock now", "gpu memory clock now", "highest gpu clock", "highest gpu memory clock")
    facts = dict(zip(names, found, strict=False))
    return {"gpu": torch.cuda.get_device_name(), "CUDA": str(torch.version.cuda), **facts}


def _of_cpu(key: str) -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return ""


def _triton() -> str:
    if importlib.util.find_spec("triton") is None:
        return "not installed"
    from triton import __version__

    return __version__


def _compiler() -> str:
    try:
        from cbtalk import _build_info
    except ImportError:
        return "not built"
    return _build_info.compiler


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
