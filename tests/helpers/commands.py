"""The command line and pytest, each in a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "cbtalk"]
# One thread for the model, so that tests side by side do not slow each other down.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
# A shell that starts a process in the background lets it ignore SIGINT; a terminal does not.
_INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
os.execv(sys.argv[1], sys.argv[1:])
"""


def run_cbtalk(*words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """The command with these words, to its end."""
    return subprocess.run([*COMMAND, *words], env=ENVIRONMENT, capture_output=True, text=True, **options)


def start_interruptible(*words: str) -> "subprocess.Popen[str]":
    """The command as a terminal starts it: in a process group of its own, which Ctrl-C reaches as a whole."""
    return subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTIBLE, *COMMAND, *words],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(happened: Callable[[], object], process: "subprocess.Popen[Any]", seconds: float = 120) -> None:
    """Until something has happened, while the process goes on."""
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


def run_pytest(
    tests: Iterable[str | Path], *words: str, plugin: str | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Tests with a plugin, the slow ones among them, up to the first failure."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [] if plugin is None else ["-p", plugin]
    return subprocess.run(
        [*command, *map(str, tests), *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
