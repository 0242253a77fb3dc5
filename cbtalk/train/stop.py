"""Signals that ask a training run to end: it finishes the step in hand and saves before it does."""

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from tqdm import tqdm

_SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__)
_SAME_SECONDS = 0.2  # shells and supervisors signal a process and then its group: that is one request


class StopRequest:
    """Takes SIGINT, SIGTERM and SIGHUP while its block runs; a context manager.

    The first asks the run to end (`number` is then the signal), the second changes nothing, the third has the effect
    that the first would have had without it. A signal that the process ignores stays ignored.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._count, self._last = 0, -_SAME_SECONDS
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if (handler := signal.getsignal(number)) is not signal.SIG_IGN:
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last < _SAME_SECONDS:
            return
        self._count, self._last = self._count + 1, now
        if self._count == 1:
            self.number = number
            _say(f"{signal.Signals(number).name}: the step in hand is finished and saved; then the run ends")
        elif self._count == 2:
            _say("still saving; once more ends at once, and what was done since the last checkpoint is lost")
        else:
            self.__exit__(None, None, None)
            os.kill(os.getpid(), number)


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
