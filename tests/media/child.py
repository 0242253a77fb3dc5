"""Processes that are killed in the middle of their work."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import cbtalk.errors

# The package without its __init__, for importing torch would take most of the time of these tests.
_PRELUDE = f"""
import sys, types
package = types.ModuleType("cbtalk")
package.__path__ = [{str(Path(cbtalk.errors.__file__).parent)!r}]
sys.modules["cbtalk"] = package
from pathlib import Path
target = Path(sys.argv[1])
"""


def killed(target: Path, body: str, number: signal.Signals) -> int:
    """Run `body`, send the process a signal once it prints "ready", and return how it ended."""
    command = [sys.executable, "-c", _PRELUDE + textwrap.dedent(body), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        return process.wait(timeout=30)
