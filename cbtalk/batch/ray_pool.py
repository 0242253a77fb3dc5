"""Workers of a batch on a cluster: actors of Ray, which finds them a place and tells when they die."""

import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cbtalk.batch.job import Job
from cbtalk.batch.pool import Answer, Member, Pool
from cbtalk.batch.worker import Outcome, Setting, Worker
from cbtalk.errors import ConfigError

_PATIENCE = 10.0  # seconds for a cluster to answer


@dataclass(eq=False, kw_only=True)
class _Actor(Member):
    handle: Any
    answer: Any  # the reference of its next answer; the first is there once the actor has found a place and is ready


class RayPool(Pool[_Actor]):
    """A pool of Ray's actors.

    Every node reads sources and writes outputs under the paths of the driver, in a shared folder, or by URLs.
    """

    def __init__(self, address: str, settings: Sequence[Setting]) -> None:
        self._ray = _connected(address)
        super().__init__(settings)

    def close(self) -> None:
        """End the actors; the cluster stays."""
        closed = [actor.handle.close.remote() for actor in self._members if actor.ready and actor.job is None]
        if closed:
            self._ray.wait(closed, num_returns=len(closed), timeout=_PATIENCE)
        for actor in self._members:
            self._end(actor)
        self._ray.shutdown()

    def _start(self, setting: Setting) -> _Actor:
        wanted = {"num_cpus": setting.threads, "num_gpus": 0 if setting.gpu is None else 1}
        handle = self._ray.remote(Worker).options(**wanted).remote(setting)
        return _Actor(setting=setting, handle=handle, answer=handle.ready.remote())

    def _end(self, member: _Actor) -> None:
        self._ray.kill(member.handle)

    def _send(self, member: _Actor, job: Job) -> None:
        member.answer = member.handle.render.remote(job)

    def _answered(self, members: list[_Actor], seconds: float) -> list[_Actor]:
        if not members:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait([member.answer for member in members], num_returns=1, timeout=seconds)
        return [member for member in members if member.answer in ready]

    def _answer(self, member: _Actor) -> Answer:
        try:
            answer: Answer = self._ray.get(member.answer)
        except self._ray.exceptions.RayError as failure:
            return Outcome("crashed", f"the worker was lost: {_reason(failure)}")
        return answer


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
