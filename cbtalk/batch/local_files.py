"""The files of jobs as files of the machine that does them."""

import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cbtalk.atomic import atomic_path
from cbtalk.batch.job import Job
from cbtalk.batch.remote_files import File, Url
from cbtalk.errors import OutputError
from cbtalk.render.options import RenderOptions


class LocalJob(NamedTuple):
    """A job whose files all lie on this machine."""

    source: Path
    driving: Path
    output: Path
    options: RenderOptions


class LocalFiles:
    """Copies of files behind URLs, in a folder that no other worker uses and that is emptied first.

    Of copies that take more than `most_bytes` the longest unused go, those of the job under way excepted. shared: this
    machine has the folder of the batch; False: it takes no output but for URLs.
    """

    def __init__(self, folder: Path, most_bytes: int, *, shared: bool = True) -> None:
        self._folder, self._most_bytes, self._shared = folder, most_bytes, shared
        self._copies: OrderedDict[str, tuple[Url, Path]] = OrderedDict()  # by version
        shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def of(self, job: Job) -> Iterator[LocalJob]:
        """The job with paths in the place of URLs; an output with a URL is put there, whole, when the block ends."""
        try:
            with self._output(job.output) as output:
                options = job.options if job.audio is None else replace(job.options, audio=self._local(job.audio))
                yield LocalJob(self._local(job.source), self._local(job.driving), output, options)
        finally:
            self._remove_oldest()

    def named(self, text: str) -> str:
        """A text about local files with the URLs in the place of their copies."""
        for url, copy in self._copies.values():
            text = text.replace(str(copy), str(url))
        return text

    @contextmanager
    def _output(self, output: File) -> Iterator[Path]:
        if isinstance(output, Url):
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                file = Path(folder) / f"output{output.suffix}"
                with output.place_for(file):
                    yield file
        elif self._shared:
            output.parent.mkdir(parents=True, exist_ok=True)
            yield output
        else:
            raise OutputError(f"{output}: this machine does not share the batch's folder; name outputs by URLs")

    def _local(self, file: File) -> Path:
        if isinstance(file, Path):
            return file
        version = file.version()
        if version not in self._copies:
            self._folder.mkdir(parents=True, exist_ok=True)
            copy = self._folder / f"{version}{file.suffix}"
            with atomic_path(copy) as temporary:
                file.download(temporary)
            self._copies[version] = file, copy
        self._copies.move_to_end(version)
        return self._copies[version][1]

    def _remove_oldest(self) -> None:
        left = sum(copy.stat().st_size for _, copy in self._copies.values())
        while left > self._most_bytes:
            _, (_, copy) = self._copies.popitem(last=False)
            left -= copy.stat().st_size
            copy.unlink()
