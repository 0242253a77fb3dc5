"""Workers of a batch on a cluster: actors of Ray, which finds them a place and tells when they die."""

import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbtalk.batch.job import Job
from cbtalk.batch.pool import next_job
from cbtalk.batch.worker import Outcome, Setting, Worker
from cbtalk.errors import ConfigError

_PATIENCE = 10.0  # seconds for a cluster to answer


@dataclass
class _Actor:
    handle: Any
    setting: Setting
    started: Any  # a reference that is there once the actor has found a place
    job: Job | None = None
    answer: Any = None  # the reference of its outcome
    source: Path | None = None  # of its last job


class RayPool:
    """A pool of Ray's actors, with the methods of `cbtalk.batch.pool.Pool`.

    Every node reads sources and writes outputs under the paths of the driver: a shared folder.
    """

    def __init__(self, address: str, settings: Sequence[Setting]) -> None:
        self._ray = _connected(address)
        self._actors = [self._start(setting) for setting in settings]

    @property
    def idle(self) -> int:
        """Actors without a job that have found a place in the cluster."""
        return len(self._idle())

    def jobs(self) -> list[Job]:
        """The jobs that actors are at."""
        return [actor.job for actor in self._actors if actor.job is not None]

    def give(self, waiting: list[Job]) -> Job:
        """Takes a job off `waiting` for an idle actor."""
        actor = self._idle()[0]
        job = next_job(waiting, actor.source)
        actor.job, actor.source = job, job.source
        actor.answer = actor.handle.render.remote(job)
        return job

    def outcomes(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """The jobs that end within some seconds; an actor that died is replaced, and its job has crashed."""
        waiting = {actor.answer: actor for actor in self._actors if actor.job is not None}
        if not waiting:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=seconds)
        found = []
        for answer in ready:
            actor = waiting[answer]
            job, actor.job = actor.job, None
            assert job is not None
            try:
                found.append((job, self._ray.get(answer)))
            except self._ray.exceptions.RayError as failure:
                self._actors[self._actors.index(actor)] = self._start(actor.setting)
                found.append((job, Outcome("crashed", f"the worker was lost: {str(failure).splitlines()[0]}")))
        return found

    def close(self) -> None:
        """End the actors; the cluster stays."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._ray.shutdown()

    def _start(self, setting: Setting) -> _Actor:
        wanted = {"num_cpus": setting.threads, "num_gpus": 0 if setting.gpu is None else 1}
        handle = self._ray.remote(Worker).options(**wanted).remote(setting)
        return _Actor(handle, setting, handle.ready.remote())

    def _idle(self) -> list[_Actor]:
        free = {actor.started: actor for actor in self._actors if actor.job is None}
        if not free:
            return []
        ready, _ = self._ray.wait(list(free), num_returns=len(free), timeout=0)
        return [free[started] for started in ready]


def cluster_workers(address: str, threads: int) -> tuple[int, bool]:
    """The number of workers that a cluster has room for, and whether they are GPUs."""
    ray = _connected(address)
    try:
        resources = ray.cluster_resources()
    finally:
        ray.shutdown()
    gpus = int(resources.get("GPU", 0))
    return (gpus, True) if gpus else (max(1, int(resources.get("CPU", 1)) // threads), False)


def _connected(address: str) -> Any:
    """Ray, connected to a cluster. Raises ConfigError where it is not installed, or where no cluster answers."""
    try:
        import ray
    except ImportError as failure:
        raise ConfigError("--ray needs the package ray: pip install 'cbtalk[ray]'") from failure
    try:
        _try_port(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as failure:
        reason = str(failure).splitlines()[0]
        raise ConfigError(f"--ray {address}: no cluster of Ray answers there ({reason})") from failure
    return ray


def _try_port(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
