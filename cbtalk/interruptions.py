"""Signals that ask a command to end, taken so that it can finish what it is at."""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from tqdm import tqdm

_SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__)
_SAME_SECONDS = 0.2  # shells and supervisors signal a process and then its group: that is one request


class Interruptions:
    """Counts SIGINT, SIGTERM and SIGHUP instead of ending by them, while its block runs; a context manager.

    messages: what is said, behind the signal's name, at the first, the second and so on; one more has the effect that
    it would have had outside of the block. A signal that the process ignores stays ignored.
    quiet: nothing is said.
    count: how many came. number: that of the last, 0 before.
    """

    def __init__(self, messages: Sequence[str], *, quiet: bool = False) -> None:
        self.count, self.number = 0, 0
        self._messages, self._quiet, self._last = messages, quiet, -_SAME_SECONDS
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals."""
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def listen(self) -> None:
        """Take the signals, also where somebody has taken them since; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            if (handler := signal.getsignal(number)) is not signal.SIG_IGN:
                self._before.setdefault(number, handler)
                signal.signal(number, self._note)

    def ask(self) -> None:
        """Count one more, as if a SIGINT had come, without its effect outside of the block."""
        self.count, self.number = self.count + 1, signal.SIGINT

    def _note(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last < _SAME_SECONDS:
            return
        self.count, self.number, self._last = self.count + 1, number, now
        if self.count > len(self._messages):
            self.__exit__(None, None, None)
            os.kill(os.getpid(), number)
        elif not self._quiet:
            tqdm.write(f"{signal.Signals(number).name}: {self._messages[self.count - 1]}", file=sys.stderr)
