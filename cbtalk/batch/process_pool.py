"""Workers of a batch on one machine: processes."""

from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess

from cbtalk.batch.job import Job
from cbtalk.batch.pool import Answer, Member, Pool
from cbtalk.batch.worker import Outcome, Setting, serve
from cbtalk.worker_process import death_in_words, end_workers, start_worker


@dataclass(eq=False, kw_only=True)
class _Worker(Member):
    process: BaseProcess
    connection: Connection


class ProcessPool(Pool[_Worker]):
    """A pool of processes of this machine."""

    def close(self) -> None:
        """End the processes; jobs that they are at are wound up."""
        for worker in self._members:
            worker.connection.close()
        end_workers([worker.process for worker in self._members])

    def _start(self, setting: Setting) -> _Worker:
        ours, theirs = Pipe()
        process = start_worker(serve, theirs, setting)
        theirs.close()
        return _Worker(setting=setting, process=process, connection=ours)

    def _end(self, member: _Worker) -> None:
        member.connection.close()
        end_workers([member.process])

    def _send(self, member: _Worker, job: Job) -> None:
        with suppress(OSError):  # it has died, which its answer will say
            member.connection.send(job)

    def _answered(self, members: list[_Worker], seconds: float) -> list[_Worker]:
        ready = wait([member.connection for member in members], timeout=seconds)
        return [member for member in members if member.connection in ready]

    def _answer(self, member: _Worker) -> Answer:
        try:
            answer: Answer = member.connection.recv()
        except (EOFError, OSError):
            member.process.join()
            return Outcome("crashed", f"its worker process died ({death_in_words(member.process.exitcode)})")
        return answer
