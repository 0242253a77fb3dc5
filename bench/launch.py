"""Processes in the environment that torchrun makes, forked from a server that has imported everything: at once."""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch does not say that it exports it

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["cbtalk.train.training", "cbtalk.cli.main", "torch.utils.tensorboard", __name__])


class Group:
    """Processes that call a function and end with the code that it returns, or 0.

    One process alone gets no such environment. The store is kept here, as torchrun keeps it.
    """

    def __init__(self, count: int, target: Callable[..., object], *arguments: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="group-")
        self._store = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(minutes=1), wait_for_workers=False)
        self._said = [Path(self._folder.name) / str(rank) for rank in range(count)]
        self.processes = [
            _context.Process(target=_run, args=(_environment(rank, count, self._store.port), said, target, arguments))
            for rank, said in enumerate(self._said)
        ]
        for process in self.processes:
            process.start()

    def begun(self) -> None:
        """Waits until every process is about to call the function, and ends by signals."""
        while not all(said.exists() for said in self._said):
            time.sleep(0.005)

    def codes(self, seconds: float = 300) -> list[int | None]:
        """Waits for the processes; their exit codes, minus the signal's number, or None for one that does not end."""
        for process in self.processes:
            process.join(seconds)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes

    def said(self, rank: int = 0) -> str:
        """The standard output and error of a process so far."""
        return self._said[rank].read_text() if self._said[rank].exists() else ""

    def kill(self, number: int, rank: int = 0) -> None:
        """Sends a signal to a process that may have ended."""
        pid = self.processes[rank].pid
        if self.processes[rank].is_alive() and pid is not None:
            os.kill(pid, number)


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    if count == 1:
        return {}
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0", "MASTER_ADDR": "127.0.0.1"}
    place = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return agent | {name: str(value) for name, value in place.items()}


def _run(place: dict[str, str], said: Path, target: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.environ.update(place)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that a shell starts,
    for number in (signal.SIGINT, signal.SIGHUP):  # and not in its background, where these are ignored
        signal.signal(number, signal.SIG_DFL)
    torch.set_num_threads(1)
    descriptor = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = target(*arguments)
    sys.exit(code if isinstance(code, int) else 0)
