"""The choice of a worker's next job, so that what it and the others have worked out serves."""

from collections.abc import Collection

from cbtalk.batch.job import Job
from cbtalk.batch.remote_files import File

_SOON = 100  # jobs among which a worker may choose


def next_job(waiting: list[Job], source: File | None, running: Collection[Job]) -> Job:
    """Takes a job off `waiting` for a worker that had `source` last, while others are `running`.

    First choice is a driving video that nobody is at, whose motion would be worked out twice, then the same source.
    """
    drivings = {job.driving for job in running}

    def price(place: int) -> tuple[bool, bool, int]:
        job = waiting[place]
        return job.driving in drivings, job.source != source, place

    return waiting.pop(min(range(min(len(waiting), _SOON)), key=price))
