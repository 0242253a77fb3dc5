"""A pool of workers, each of which is replaced when it dies or a job has crashed in it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cbtalk.batch.choice import next_job
from cbtalk.batch.job import Job
from cbtalk.batch.remote_files import File
from cbtalk.batch.worker import Outcome, Setting
from cbtalk.errors import CbtalkError, SystemFailure

_FAILED_STARTS = 3  # of workers, one after another, that end a batch

Answer = Outcome | CbtalkError | None


@dataclass(eq=False, kw_only=True)
class Member:
    """A worker in a pool. ready: it has started; job: what it is at; source: of its last job."""

    setting: Setting
    ready: bool = False
    job: Job | None = None
    source: File | None = None


M = TypeVar("M", bound=Member)


class Pool(ABC, Generic[M]):
    """Workers with one setting each; `give` hands out jobs, `outcomes` says how they ended.

    A kind of worker says how one is started and ended, is sent a job, and answers: first None, that it is there, or the
    CbtalkError for which it cannot be; then the Outcome of each job, "crashed" where it died at it.
    """

    def __init__(self, settings: Sequence[Setting]) -> None:
        self._failed_starts = 0
        self._members = [self._start(setting) for setting in settings]

    @property
    def idle(self) -> int:
        """Workers that wait for a job."""
        return len(self._idle())

    def jobs(self) -> list[Job]:
        """The jobs that workers are at."""
        return [member.job for member in self._members if member.job is not None]

    def give(self, waiting: list[Job]) -> Job:
        """Takes a job off `waiting` for an idle worker."""
        member = self._idle()[0]
        job = next_job(waiting, member.source, self.jobs())
        member.job, member.source = job, job.source
        self._send(member, job)
        return job

    def outcomes(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """The jobs that end within some seconds.

        A worker that died is replaced, and its job has crashed; so is one whose job crashed, for nobody knows what that
        left in its memory or on its GPU. Raises the CbtalkError for which a worker cannot be started.
        """
        awaited = [member for member in self._members if member.job is not None or not member.ready]
        found = []
        for member in self._answered(awaited, seconds):
            job, member.job = member.job, None
            answer = self._answer(member)
            if isinstance(answer, CbtalkError):
                raise answer
            if job is None or answer is None:
                self._started(member, answer)
                continue
            if answer.kind == "crashed":
                self._replace(member)
            found.append((job, answer))
        return found

    @abstractmethod
    def close(self) -> None:
        """End the workers; jobs that they are at are wound up."""

    @abstractmethod
    def _start(self, setting: Setting) -> M: ...

    @abstractmethod
    def _end(self, member: M) -> None: ...

    @abstractmethod
    def _send(self, member: M, job: Job) -> None: ...

    @abstractmethod
    def _answered(self, members: list[M], seconds: float) -> list[M]:
        """Those of some workers that answer, or die, within some seconds."""

    @abstractmethod
    def _answer(self, member: M) -> Answer: ...

    def _idle(self) -> list[M]:
        return [member for member in self._members if member.ready and member.job is None]

    def _started(self, member: M, death: Outcome | None) -> None:
        """Note that a worker is there; one that died on the way is replaced, unless many did."""
        if death is None:
            member.ready, self._failed_starts = True, 0
            return
        self._failed_starts += 1
        if self._failed_starts == _FAILED_STARTS:
            raise SystemFailure(f"no worker can be started: {death.error}")
        self._replace(member)

    def _replace(self, member: M) -> None:
        """Start a new worker in the place of one."""
        self._end(member)
        self._members[self._members.index(member)] = self._start(member.setting)
