"""Work on one video: its stretches are planned, then cut, and each step is told."""

from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cbtalk.errors import CbtalkError, OutputError, SystemFailure
from cbtalk.media.video_reader import VideoInfo, VideoReader, open_video
from cbtalk.prepare.annotated import plan_annotation
from cbtalk.prepare.annotations import Annotation
from cbtalk.prepare.cutting import Cut, cut
from cbtalk.prepare.messages import Aborted, Done, Failed, Finished, Message, Planned, Progress
from cbtalk.prepare.options import PrepareOptions
from cbtalk.prepare.plan import plan_scene
from cbtalk.prepare.sightings import Scene, scenes_of
from cbtalk.prepare.sources import Source, plain_name
from cbtalk.prepare.stretch import Reason, Stretch

_PLANNING = 0.6  # of the work, the rest being the cutting


@dataclass(frozen=True)
class Job:
    """A video to work on.

    fingerprint: changes with all that its clips follow from. annotations: of the video; None where faces are looked
    for. planned: its stretches that are still to be cut, by their numbers, where an earlier run has planned it.
    """

    source: Source
    output: Path
    options: PrepareOptions
    fingerprint: str
    annotations: tuple[Annotation, ...] | None = None
    planned: tuple[tuple[int, Stretch], ...] | None = None


def work(job: Job) -> Generator[Message, None, None]:
    """Do a job and tell each step; the last message is Done, Failed or Aborted."""
    try:
        yield from _work(job)
    except (OutputError, SystemFailure) as error:
        yield Aborted(error)
    except CbtalkError as error:
        yield Failed(str(error))
    except OSError as error:  # of the output, for what is wrong with the input is an InputError
        reason = f"{job.output}: cannot be written: {error.strerror}; free space or choose another folder"
        yield Aborted(SystemFailure(reason))
    except Exception as error:  # one video must not stop the others
        yield Failed(f"{job.source.path}: internal: {type(error).__name__}: {error}")


def _work(job: Job) -> Iterator[Message]:
    planned = job.planned
    with open_video(job.source.path) as reader:
        warnings = reader.info.warnings
        if planned is None:
            found: list[Stretch] = []
            for step in _plan(job, reader):
                if isinstance(step, Progress):
                    yield step
                else:
                    found.append(step)
            yield Planned(tuple(found))
            planned = tuple((number, stretch) for number, stretch in enumerate(found) if stretch.name is not None)
    if planned:
        with open_video(job.source.path) as reader:
            for cutting in cut(reader, planned, job.output, job.options):
                if isinstance(cutting, Cut):
                    yield Finished(cutting.number, cutting.stretch)
                else:
                    yield Progress(_PLANNING + (1 - _PLANNING) * _share(cutting, reader.info))
    yield Done(warnings)


def _plan(job: Job, reader: VideoReader) -> Iterator[Stretch | Progress]:
    """The stretches of a video, those with names being clips to be cut; and how far it is read."""
    size = (reader.info.width, reader.info.height)
    names = _Names(job)
    if job.annotations is None:
        for seen in scenes_of(reader):
            if isinstance(seen, Scene):
                yield from (names(stretch) for stretch in plan_scene(seen, size, job.options))
            else:
                yield Progress(_PLANNING * _share(seen, reader.info))
    elif job.annotations:
        for annotation in job.annotations:
            yield from (names(stretch, annotation) for stretch in plan_annotation(annotation, size, job.options))
    else:
        yield Stretch(0.0, reader.info.duration or 0.0, reason=Reason.NO_ANNOTATION)


class _Names:
    """Gives the stretches that become clips their names, numbered in the order in which they come."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._counts: Counter[str] = Counter()

    def __call__(self, stretch: Stretch, annotation: Annotation | None = None) -> Stretch:
        if stretch.reason is not None:
            return stretch
        stem = self._job.source.clip_stem(annotation.identity if annotation else None)
        number = self._counts[stem]
        self._counts[stem] += 1
        folder = f"{plain_name(annotation.partition)}/" if annotation and annotation.partition else ""
        suffix = "" if self._job.options.frames else ".mp4"
        return replace(stretch, name=f"{folder}{stem}__{number:03}{suffix}")


def _share(time: float, info: VideoInfo) -> float:
    return min(1.0, time / info.duration) if info.duration else 0.0
