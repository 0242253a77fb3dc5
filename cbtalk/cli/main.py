"""The command line: one thin function a command. torch is imported by a command only, so that --help is quick."""

import contextlib
import errno
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from functools import partial
from types import FrameType
from typing import Any

from cbtalk import __version__
from cbtalk.cli.app import app
from cbtalk.cli.batch import batch
from cbtalk.cli.evaluate import evaluate
from cbtalk.cli.export import export
from cbtalk.cli.figures import figures
from cbtalk.cli.render import crop, motion, render
from cbtalk.cli.shards import shards
from cbtalk.cli.train import ablate, convert, prepare, split_settings, train
from cbtalk.errors import AlreadyTold, CbtalkError, ConfigError
from cbtalk.options.parsing import COMPLETION, filled, parse_command, write_completion

HELP = """usage: cbtalk [-h] [--version] COMMAND [OPTIONS]

Talking heads from one image.

{commands}

  -h, --help  show this message, or with a command its options
  --version   show the version
  --debug     with any command: show where an error comes from

Example:

    cbtalk render -s portrait.jpg -d driving.mp4 -o out.mp4"""

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_SIGNAL_SECONDS = 2.0
LOST_SECONDS = 0.5


def doctor() -> int:
    """Show versions and backends, why any is off, and test every op against its reference.

    Examples:

        cbtalk doctor
    """
    from cbtalk.doctor import diagnose

    return diagnose()


COMMANDS: dict[str, Callable[..., Any]] = {
    "render": render,
    "motion": motion,
    "crop": crop,
    "batch": batch,
    "app": app,
    "prepare": prepare,
    "shards": shards,
    "train": train,
    "ablate": ablate,
    "evaluate": evaluate,
    "figures": figures,
    "convert": convert,
    "export": export,
    "doctor": doctor,
}

TRAINING = ("train", "ablate")  # whose configuration's settings are arguments too


class Interrupted(BaseException):
    """A signal that asks the process to end; not an Exception, so that nothing takes it for a failure to mend."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 1: the machine or cbtalk failed; 2: the user can mend it; 128 + n: ended by signal n.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may have characters that the terminal has not
        sys.stdout.reconfigure(errors="backslashreplace")
    # An OpenMP thread that waits by spinning takes the core from whoever it waits for: the encoder's and decoder's
    # threads, or another process. Rendering `mini` beside other work, two Xeon cores, November 2026: 0.13 s of CPU a
    # frame instead of 0.8. Training has the machine to itself, and a thread that sleeps wakes late: a step at
    # 256 x 256, batch 4, took 2.0 s instead of 1.5 (two Xeon cores, November 2026).
    if not set(arguments[:1]) & set(TRAINING):
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with _raised_signals():
            call = _parse(arguments)
            return call() or 0
    except (Exception, Interrupted) as failure:
        if debug:
            traceback.print_exc()
        message, code = _explain(failure)
        if not isinstance(failure, AlreadyTold):
            print(f"error: {message}", file=sys.stderr)
        return code


def _parse(arguments: list[str]) -> Callable[[], int | None]:
    """The call that the arguments ask for. Raises ConfigError for wrong ones, SystemExit after help."""
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help", "--version"):
        return partial(print, f"cbtalk {__version__}" if name == "--version" else _help())
    if name.startswith(COMPLETION):
        return partial(write_completion, COMMANDS, "cbtalk", arguments)
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        wrong = f"{name!r} is no command" if name else "name a command"
        meant = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{wrong}{meant} (`cbtalk --help` shows all)")
    own, settings = split_settings(arguments[1:]) if name in TRAINING else (arguments[1:], ())
    call = parse_command(COMMANDS[name], f"cbtalk {name}", own)
    return partial(call, settings=settings) if name in TRAINING else call


def _help() -> str:
    """The commands and what they do, as wide as the terminal."""
    width = max(map(len, COMMANDS)) + 4
    texts = {name: (command.__doc__ or "").partition("\n")[0] for name, command in COMMANDS.items()}
    return HELP.format(commands="\n".join(filled(f"  {name:{width - 2}}{texts[name]}", width) for name in COMMANDS))


def _explain(failure: BaseException) -> tuple[str, int]:
    """One line for the user, and the exit code."""
    if isinstance(failure, CbtalkError):
        return " ".join(str(failure).split()), failure.exit_code
    if isinstance(failure, Interrupted):
        return f"interrupted by {failure}", failure.exit_code
    if isinstance(failure, OSError) and failure.errno == errno.ENOSPC:
        return "no space left on the disk", 1
    if isinstance(failure, MemoryError) or type(failure).__name__ == "OutOfMemoryError":
        return "out of memory; a smaller --batch-size needs less", 1
    reason = " ".join(f"{type(failure).__name__}: {failure}".split())
    return f"internal: {reason} (--debug shows where)", 1


@contextlib.contextmanager
def _raised_signals() -> Iterator[None]:
    """SIGINT and SIGTERM as an exception in the main thread, which winds everything up on its way out."""
    last = -SAME_SIGNAL_SECONDS
    latest = 0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal last, latest
        # `timeout`, shells and supervisors signal a process and then its group: the second one must not end the
        # winding up.
        repeated = time.monotonic() - last < SAME_SIGNAL_SECONDS
        last, latest = time.monotonic(), number
        if not (repeated and _winding_up()):
            signal.setitimer(signal.ITIMER_REAL, LOST_SECONDS, LOST_SECONDS)
            raise Interrupted(number)

    def look_again(_number: int, _frame: FrameType | None) -> None:
        if not _winding_up():  # a destructor, or a library that clears errors, has swallowed the exception
            raise Interrupted(latest)

    handlers = {**dict.fromkeys(SIGNALS, handle), signal.SIGALRM: look_again}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _winding_up() -> bool:
    """Whether an `Interrupted` is on its way through blocks that clean up."""
    failure = sys.exception()
    while failure is not None and not isinstance(failure, Interrupted):
        failure = failure.__context__
    return failure is not None
