"""Workers of a batch on a cluster: actors of Ray, which finds them a place and tells when they die."""

import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbtalk.batch.choice import next_job
from cbtalk.batch.job import Job
from cbtalk.batch.pool import FAILED_STARTS
from cbtalk.batch.worker import Outcome, Setting, Worker
from cbtalk.errors import ConfigError, SystemFailure

_PATIENCE = 10.0  # seconds for a cluster to answer


@dataclass(eq=False)
class _Actor:
    handle: Any
    setting: Setting
    answer: Any  # the reference of its outcome; at first of nothing, once it has found a place and is ready
    ready: bool = False
    job: Job | None = None
    source: Path | None = None  # of its last job


class RayPool:
    """A pool of Ray's actors, with the methods of `cbtalk.batch.pool.Pool`.

    Every node reads sources and writes outputs under the paths of the driver: a shared folder.
    """

    def __init__(self, address: str, settings: Sequence[Setting]) -> None:
        self._ray = _connected(address)
        self._failed_starts = 0
        self._actors = [self._start(setting) for setting in settings]

    @property
    def idle(self) -> int:
        """Actors that have found a place in the cluster and wait for a job."""
        return sum(actor.ready and actor.job is None for actor in self._actors)

    def jobs(self) -> list[Job]:
        """The jobs that actors are at."""
        return [actor.job for actor in self._actors if actor.job is not None]

    def give(self, waiting: list[Job]) -> Job:
        """Takes a job off `waiting` for an idle actor."""
        actor = next(actor for actor in self._actors if actor.ready and actor.job is None)
        job = next_job(waiting, actor.source, self.jobs())
        actor.job, actor.source = job, job.source
        actor.answer = actor.handle.render.remote(job)
        return job

    def outcomes(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """The jobs that end within some seconds; actors are replaced as the processes of `Pool.outcomes` are."""
        waiting = {actor.answer: actor for actor in self._actors if actor.job is not None or not actor.ready}
        if not waiting:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=seconds)
        found = []
        for answer in ready:
            actor = waiting[answer]
            job, actor.job = actor.job, None
            try:
                outcome = self._ray.get(answer)
            except self._ray.exceptions.RayError as failure:
                outcome = Outcome("crashed", f"the worker was lost: {_reason(failure)}")
            if job is None:
                self._started(actor, outcome)
                continue
            if outcome.kind == "crashed":
                self._replace(actor)
            found.append((job, outcome))
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

    def _started(self, actor: _Actor, outcome: Outcome | None) -> None:
        """Note that an actor is there; one that died on the way is replaced, unless many did."""
        actor.ready = outcome is None
        self._failed_starts = 0 if outcome is None else self._failed_starts + 1
        if outcome is not None and self._failed_starts == FAILED_STARTS:
            raise SystemFailure(f"no worker can be started: {outcome.error}")
        if outcome is not None:
            self._replace(actor)

    def _replace(self, actor: _Actor) -> None:
        """Start a new actor in the place of one."""
        self._ray.kill(actor.handle)
        self._actors[self._actors.index(actor)] = self._start(actor.setting)


def _reason(failure: Exception) -> str:
    """One line of what Ray says: an exception in the actor is the last one, other reasons are the first."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return lines[-1] if getattr(failure, "actor_init_failed", False) else lines[0]


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
