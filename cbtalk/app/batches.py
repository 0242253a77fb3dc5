"""The work behind the page's third tab: uploaded files and a manifest, run as a batch."""

import csv
import io
import shutil
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from cbtalk.app.limits import Limits
from cbtalk.atomic import write_text
from cbtalk.batch import BatchOptions, Entry, Job, Summary, faults_of, read_ledger, read_manifest, run_batch
from cbtalk.batch.ledger import NAME
from cbtalk.batch.report import write_report
from cbtalk.csv_rows import Fault
from cbtalk.errors import CbtalkError, InputError
from cbtalk.file_names import real_path
from cbtalk.interruptions import Interruptions
from cbtalk.media.kinds import IMAGE_SUFFIXES

COLUMNS = ("source", "driving", "strength", "smooth", "paste")
_TOLD = 3  # faults in one line


def every_pair(files: Iterable[str]) -> list[list[str]]:
    """Rows of `COLUMNS`: each image among the files with each clip or motion file, options left empty."""
    names = sorted(Path(file).name for file in files)
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    drivings = [name for name in names if name not in images and Path(name).suffix.lower() not in (".csv", ".jsonl")]
    empty = [""] * (len(COLUMNS) - 2)
    return [[image, driving, *empty] for image, driving in product(images, drivings)]


def manifest_of(rows: Iterable[Sequence[object]]) -> str:
    """The rows of a table as a manifest in CSV; rows without a word are left out."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    cells = ([("" if cell is None else str(cell)).strip() for cell in row] for row in rows)
    writer.writerows(row for row in cells if any(row))
    return text.getvalue()


class PageBatch:
    """One batch of a page, in a folder of its own: `inputs` with what was uploaded, and the results.

    It is checked as a whole before it is begun. Raises InputError with the first faults in one line.
    """

    def __init__(
        self, files: Iterable[str], manifest: str | None, rows: Iterable[Sequence[object]], limits: Limits, parent: Path
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="batch-", dir=parent))
        self._limits = limits
        self._inputs = self.folder / "inputs"
        self._inputs.mkdir()
        for file in files:
            place = self._inputs / Path(file).name
            if place.exists():
                raise InputError(f"{place.name}: two of the files have this name; rename one")
            shutil.copyfile(file, place)
        if manifest:
            self._manifest = self._inputs / Path(manifest).name
            shutil.copyfile(manifest, self._manifest)
        else:
            self._manifest = self._inputs / "manifest.csv"
            write_text(self._manifest, manifest_of(rows))
        self.summary: Summary | None = None
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        self._interruptions = Interruptions((), quiet=True)  # the thread's own: signals are for the page's process

    def check(self, weights: str) -> list[Job]:
        """The jobs, of which nothing reaches out of the batch's folder."""
        jobs, faults = read_manifest(self._manifest, self.folder, {})
        if len(jobs) > self._limits.jobs:
            raise InputError(
                f"{len(jobs)} jobs are more than {self._limits.jobs}; `cbtalk batch` takes any number, or start the "
                "page with a larger --max-jobs"
            )
        outside = [Fault(job.line, text) for job in jobs if (text := self._outside(job)) is not None]
        faults += outside or faults_of(jobs, weights)
        bounded = []
        if not faults:
            for job in jobs:
                try:
                    bounded.append(self._bounded(job))
                except CbtalkError as failure:
                    faults.append(Fault(job.line, str(failure)))
        if faults:
            raise InputError(_in_a_line(faults))
        return bounded

    def start(self, jobs: Sequence[Job], options: BatchOptions) -> None:
        """Begin the work, in a thread; `entries` tells how far it is."""

        def work() -> None:
            try:
                self.summary = run_batch(jobs, self.folder, options, interruptions=self._interruptions)
            except Exception as failure:  # told by `finished`
                self._failure = failure

        self._thread = threading.Thread(target=work, name="cbtalk-batch", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """Let the running jobs finish and begin no others; asked once more, end those too. False: it has ended."""
        self._interruptions.ask()
        return self._thread is not None and self._thread.is_alive()

    def finished(self, seconds: float) -> bool:
        """Whether the batch has ended, after at most so many seconds; what ended it for no job's fault is raised."""
        assert self._thread is not None
        self._thread.join(seconds)
        if self._failure is not None:
            raise self._failure
        return not self._thread.is_alive()

    def entries(self) -> list[Entry]:
        """All jobs and their states, as the ledger has them; none before there is one."""
        return read_ledger(self.folder) if (self.folder / NAME).is_file() else []

    def results(self) -> list[Path]:
        """The finished videos, and a report of all jobs behind them."""
        entries = self.entries()
        report = self.folder / "report.csv"
        write_report(report, entries)
        return [*(self.folder / entry.output for entry in entries if entry.state == "done"), report]

    def _outside(self, job: Job) -> str | None:
        """The first input that is not among the uploaded files, or the output where it is not in the folder."""
        for file in job.inputs:
            if not isinstance(file, Path) or real_path(self._inputs) not in real_path(file).parents:
                return f"{file}: only uploaded files can be named here; `cbtalk batch` takes any"
        return None if isinstance(job.output, Path) else f"{job.output}: a page's batch writes no URLs"

    def _bounded(self, job: Job) -> Job:
        assert isinstance(job.source, Path) and isinstance(job.driving, Path)
        return replace(job, options=self._limits.bounded(job.driving, job.options))


def _in_a_line(faults: Sequence[Fault]) -> str:
    told = [f"line {fault.line}: {fault.text}" if fault.line is not None else fault.text for fault in faults[:_TOLD]]
    more = f"; and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
    return f"nothing was begun: {'; '.join(told)}{more}"
