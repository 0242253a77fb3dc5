"""The processes of a run: torchrun starts them, they meet here, and the first speaks for all."""

import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from cbtalk.errors import AlreadyTold, ConfigError, LostProcess
from cbtalk.train.share import Share

T = TypeVar("T")

ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun's
SILENCE = timedelta(minutes=30)  # of a process that nobody hears: the first may be long at a preview. One that ends is
# noticed at once, by its connections.
POLL_SECONDS = 0.05
FAILURES = "failures"  # their number, in the store


@dataclass(frozen=True)
class Processes:
    """This process's place among those of the run, and on its machine.

    store: what they leave for each other; None for a process alone.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    store: Store | None = None

    @property
    def share(self) -> Share:
        """This process's share of a batch."""
        return Share(self.rank, self.count)

    def from_first(self, name: str, make: Callable[[], T]) -> T:
        """The result of `make` in the first process, for which the others wait however long it takes.

        Raises LostProcess where it fails.
        """
        if self.store is None:
            return make()
        if self.rank == 0:
            self.store.set(name, pickle.dumps(made := make()))  # type: ignore[arg-type]  # bytes, too
            return made
        while not self.store.check([name]):
            if self.store.check([FAILURES]):
                raise LostProcess("another process of this run ended")
            time.sleep(POLL_SECONDS)  # in Python, so that signals are heard
        return pickle.loads(self.store.get(name))

    @contextmanager
    def first_alone(self, name: str) -> Iterator[None]:
        """Lets the first process through the block, then the others."""
        if self.rank:
            self.from_first(name, lambda: None)
        yield
        if self.rank == 0:
            self.from_first(name, lambda: None)

    def device(self, name: str) -> torch.device:
        """The device of this process, by `run.device`: its own GPU of several. Raises ConfigError."""
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if self.count > 1 and name.startswith("cuda"):
            name = self._own_gpu(name)
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"run.device {name!r} cannot be used: {error}") from error
        return device

    def _own_gpu(self, name: str) -> str:
        if name != "cuda":
            raise ConfigError(f"run.device {name!r} is one GPU for {self.count} processes; cuda gives each one")
        if self.local_count > (gpus := torch.cuda.device_count()):
            raise ConfigError(
                f"{self.local_count} processes and {gpus} GPUs: start one for each, or set run.device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    def set_threads(self, threads: int | None) -> None:
        """Divides the CPU threads of `run.threads`, by default all cores, among the processes of this machine.

        A process alone keeps torch's own choice; torchrun allows each one thread, whatever there is.
        """
        if threads is None and self.count > 1:
            threads = len(os.sched_getaffinity(0))
        if threads is not None:
            torch.set_num_threads(max(1, threads // self.local_count))


def is_first() -> bool:
    """Whether this process speaks for the run."""
    return not _launched() or os.environ["RANK"] == "0"


@contextmanager
def joined() -> Iterator[Processes]:
    """Meets the other processes that torchrun started; without its environment, this process is alone.

    Of an error that ends them all, the first to fail tells the reason; in the others it becomes AlreadyTold.
    """
    if not _launched():
        yield Processes()
        return
    rank, count, local_rank, local_count = (int(os.environ[name]) for name in ENVIRONMENT[:4])
    store, _, _ = next(rendezvous("env://"))
    if rank:
        logging.getLogger("cbtalk").setLevel(logging.ERROR)
    try:
        _connect(rank, count)
        yield Processes(rank, count, local_rank, local_count, store)
    except BaseException as failure:  # the group is left to the end of the process: closing it could wait for the dead
        if _first_to_fail(store):
            raise
        raise AlreadyTold(failure) from failure
    dist.destroy_process_group()


def _connect(rank: int, count: int) -> None:
    """Makes the group, in a thread: one that waits for a process that is gone does not hear signals."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, _, _ = next(rendezvous("env://"))  # of its own: while it waits for a key, nobody else can use it
    failures: list[Exception] = []

    def connect() -> None:
        try:
            group = PrefixStore("group", store)
            dist.init_process_group(backend, timeout=SILENCE, store=group, rank=rank, world_size=count)
        except RuntimeError as error:
            failures.append(error)

    connecting = threading.Thread(target=connect, daemon=True)
    connecting.start()
    while connecting.is_alive():
        connecting.join(POLL_SECONDS)
    if failures:
        raise LostProcess(f"the processes of this run cannot reach each other: {failures[0]}") from failures[0]


def _launched() -> bool:
    return all(name in os.environ for name in ENVIRONMENT) and os.environ["WORLD_SIZE"] != "1"


def _first_to_fail(store: Store) -> bool:
    try:
        return store.add(FAILURES, 1) == 1
    except RuntimeError:  # kept by a process that is gone
        return True
