"""The command: all videos of a folder, in worker processes, going on where an earlier run was ended."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from cbtalk.errors import ConfigError, OutputError
from cbtalk.prepare.annotations import Annotation, read_annotations
from cbtalk.prepare.ledger import Ledger
from cbtalk.prepare.messages import Aborted, Done, Failed, Finished, Planned, Progress
from cbtalk.prepare.options import PrepareOptions
from cbtalk.prepare.report import FILE, Row, rows_of, summary, write_report
from cbtalk.prepare.resume import jobs_left, sweep
from cbtalk.prepare.sources import find_sources, plain_name
from cbtalk.prepare.work import Job
from cbtalk.prepare.workers import run_jobs


@dataclass(frozen=True)
class Outcome:
    """The output folder's content now. notes: for the user; failures: why videos could not be read, a line each."""

    rows: list[Row]
    notes: list[str]
    failures: list[str]


def prepare(
    raw: Path,
    output: Path,
    options: PrepareOptions | None = None,
    *,
    annotations: Path | None = None,
    workers: int = 1,
    progress: bool = True,
) -> Outcome:
    """Make training clips of the videos in `raw`, in `output`, with a report.

    annotations: file or folder that says where whom to look for; without it, faces are found. workers: processes.
    progress: show a bar on a terminal.

    What an earlier run finished stays as it is, unless the video or the options changed. Videos that cannot be read are
    left out, and tried again in the next run.

    Raises InputError where there is no video or an annotation cannot be read, OutputError or SystemFailure where
    `output` cannot be written.
    """
    options = options or PrepareOptions()
    if workers < 1:
        raise ConfigError(f"--workers {workers}: must be 1 or more")
    sources = find_sources(raw, output, options.identity)
    _make_folder(output, raw)
    known = None if annotations is None else read_annotations(annotations, {source.path.stem for source in sources})
    with Ledger.opened(output, raw) as ledger:
        folders = [output, *_partitions(output, known or {})]
        sweep(folders)
        jobs = jobs_left(ledger, sources, output, options, known)
        try:
            _run(ledger, jobs, workers, progress)
        finally:
            sweep(folders)
        rows = rows_of(ledger)
        write_report(output / FILE, rows)
        before = len(sources) - len(jobs)
        notes = [f"{before} of {len(sources)} videos were done before"] if before else []
        notes += [f"{output / FILE}: {summary(rows)[0]}", *summary(rows)[1:]]
        return Outcome(rows, notes, [entry.note for entry in ledger.entries() if entry.state == "failed"])


def _make_folder(output: Path, raw: Path) -> None:
    """The output folder, which must not be above the raw videos: training would read those too."""
    here, there = output.resolve(), raw.resolve()
    if here == there or here in there.parents:
        raise OutputError(f"{output}: holds the raw videos; choose another folder for the clips")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be made: {error.strerror}; choose another folder") from error


def _partitions(output: Path, annotations: dict[str, list[Annotation]]) -> set[Path]:
    names = {one.partition for of in annotations.values() for one in of if one.partition}
    return {output / plain_name(name) for name in names}


def _run(ledger: Ledger, jobs: list[Job], workers: int, progress: bool) -> None:
    """Do the jobs and put down what comes of them. The bar counts bytes of the raw videos."""
    sizes = {job.source.name: job.source.path.stat().st_size for job in jobs}
    shares = dict.fromkeys(sizes, 0.0)
    clips = 0
    with (
        tqdm(
            total=sum(sizes.values()), desc="prepare", unit="B", unit_scale=True, disable=None if progress else True
        ) as bar,
        closing(run_jobs(jobs, workers)) as messages,
    ):
        for job, message in messages:
            name = job.source.name
            match message:
                case Progress(share):
                    shares[name] = max(shares[name], share)
                case Planned(stretches):
                    ledger.plan(name, job.fingerprint, stretches)
                case Finished(number, stretch):
                    ledger.finish(name, number, stretch)
                    clips += stretch.reason is None
                case Done(warnings):
                    ledger.done(name, warnings)
                    shares[name] = 1.0
                case Failed(reason):
                    ledger.fail(name, job.fingerprint, reason)
                    shares[name] = 1.0
                case Aborted(error):
                    raise error
            bar.set_postfix(clips=clips, refresh=False)
            bar.update(sum(sizes[name] * share for name, share in shares.items()) - bar.n)
