"""The device, the threads and the closing words of a command."""

import sys
from typing import Any, Literal

from cbtalk.allocator import keep_freed_memory
from cbtalk.errors import ConfigError
from cbtalk.options.machine import Place


def use(machine: Place) -> Literal["cpu", "cuda"]:
    """Set torch's threads and the allocator, and settle the device."""
    import torch

    device, threads = machine.device, machine.threads

    keep_freed_memory()
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads {threads}: must be 1 or more")
        torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU here; `cbtalk doctor` shows its build")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def tell(report: Any, quiet: bool) -> None:
    """Print the warnings of a report to standard error and, unless quiet, its lines."""
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for line in () if quiet else report.lines:
        print(line)
