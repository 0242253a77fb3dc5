"""Processes that are killed in the middle of their work."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import cbtalk.errors

# The package without its __init__, for importing torch would take most of the time of these tests. A test run started
# in the background of a shell inherits an ignored SIGINT.
_PRELUDE = f"""
import signal, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
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
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            process.send_signal(number)
            return process.wait(timeout=30)
        finally:
            process.kill()
