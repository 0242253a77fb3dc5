"""Jobs that an earlier run left, and clips of it that are out of date."""

import hashlib
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from cbtalk.atomic import left_over
from cbtalk.prepare.annotations import Annotation
from cbtalk.prepare.ledger import Ledger
from cbtalk.prepare.options import PrepareOptions
from cbtalk.prepare.sources import Source
from cbtalk.prepare.stretch import Stretch
from cbtalk.prepare.work import Job

# Of a clip or the report; other commands may be writing beside us.
_OURS = re.compile(r".*(__\d{3,}(\.mp4)?|\.csv)", re.DOTALL)


def sweep(folders: Iterable[Path]) -> None:
    """Remove what a killed run was writing in these folders."""
    for folder in folders:
        for path, name in left_over(folder):
            if _OURS.fullmatch(name):
                _remove(path)


def jobs_left(
    ledger: Ledger,
    sources: Sequence[Source],
    output: Path,
    options: PrepareOptions,
    annotations: dict[str, list[Annotation]] | None,
) -> list[Job]:
    """The videos that are not finished, with what is left to do of each; clips that are out of date are removed."""
    entries = {entry.name: entry for entry in ledger.entries()}
    jobs = []
    for source in sources:
        its_own = None if annotations is None else tuple(annotations.get(source.path.stem, ()))
        fingerprint = _fingerprint(source, options, its_own)
        entry = entries.get(source.name)
        planned = None
        if entry is not None and entry.fingerprint != fingerprint:
            _forget(ledger, source.name, output)
        elif entry is not None:
            planned = _left(ledger, source.name, output)
            if entry.state == "done" and not planned:
                continue
            if entry.state == "failed" and not ledger.stretches(source.name):
                planned = None
        jobs.append(Job(source, output, options, fingerprint, its_own, planned))
    _forget_replaced(ledger, {source.name for source in sources}, jobs, output)
    return jobs


def _fingerprint(source: Source, options: PrepareOptions, annotations: tuple[Annotation, ...] | None) -> str:
    status = source.path.stat()
    facts = (status.st_size, status.st_mtime_ns, source.stem, options.digest(), annotations)
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()


def _left(ledger: Ledger, video: str, output: Path) -> tuple[tuple[int, Stretch], ...]:
    """The stretches of a video that are still to be cut, those among them whose files were removed."""
    left = []
    for number, stretch, finished in ledger.stretches(video):
        if finished and stretch.name is not None and not (output / stretch.name).exists():
            ledger.reopen(video, number)
            finished = False
        if not finished:
            left.append((number, stretch))
    return tuple(left)


def _forget(ledger: Ledger, video: str, output: Path) -> None:
    """Remove the clips of a video, and what is known of it."""
    for _, stretch, _ in ledger.stretches(video):
        if stretch.name is not None:
            _remove(output / stretch.name)
    ledger.forget(video)


def _forget_replaced(ledger: Ledger, present: set[str], jobs: Sequence[Job], output: Path) -> None:
    """Forget videos that are gone, and in whose place there is one whose clips have the same names."""
    stems = {job.source.clip_stem(one.identity) for job in jobs for one in job.annotations or ()}
    stems |= {job.source.stem for job in jobs}
    for entry in ledger.entries():
        names = [stretch.name for _, stretch, _ in ledger.stretches(entry.name) if stretch.name is not None]
        if entry.name not in present and any(Path(name).name.rpartition("__")[0] in stems for name in names):
            _forget(ledger, entry.name, output)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
