"""The results of an evaluation's jobs, in a folder, each as soon as it is there: what is done stays done."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from cbtalk.atomic import atomic_path, left_over
from cbtalk.errors import OutputError
from cbtalk.evaluate.jobs import Job
from cbtalk.evaluate.judge import Vectors

_KINDS = (".json", ".npz", ".png")
_KEY_LENGTH = 32


class Parts:
    """A folder of results, by the keys of the jobs; whole files only, so that many processes may write them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def is_done(self, job: Job) -> bool:
        """Whether the job has figures."""
        return "figures" in self.read(job)

    def write(
        self, job: Job, figures: dict[str, Any], vectors: Vectors, bands: Sequence[Image.Image], warnings: list[str]
    ) -> None:
        """Keep what a job gave; the figures come last, so that where they are, all is."""
        if vectors:
            with atomic_path(self._file(job, ".npz")) as temporary, temporary.open("wb") as file:
                np.savez(file, **vectors)  # type: ignore[arg-type]
        for number, band in enumerate(bands):
            with atomic_path(self._file(job, f".{number}.png")) as temporary:
                band.save(temporary, format="PNG")
        self._write(job, {"figures": figures, "warnings": warnings})

    def fail(self, job: Job, reason: str) -> None:
        """Keep why a job gave nothing, in one line."""
        self._write(job, {"error": " ".join(reason.split())})

    def read(self, job: Job) -> dict[str, Any]:
        """{"figures", "warnings"} or {"error"}; {} where the job has not ended."""
        try:
            found: dict[str, Any] = json.loads(self._file(job, ".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def vectors(self, job: Job) -> Vectors:
        """Those of FID; none where there was no network."""
        with suppress(FileNotFoundError), np.load(self._file(job, ".npz"), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
        return {}

    def bands(self, job: Job) -> list[Path]:
        """Files of the bands of the contact sheet."""
        return sorted(self._folder.glob(f"{job.key}.*.png"), key=lambda file: int(file.name.split(".")[1]))

    def remove(self) -> None:
        """Remove all that evaluations keep in the folder."""
        for file in self._folder.iterdir():
            if file.suffix in _KINDS and len(file.name.partition(".")[0]) == _KEY_LENGTH:
                file.unlink(missing_ok=True)
        for file, _ in left_over(self._folder):
            file.unlink(missing_ok=True)

    def _file(self, job: Job, suffix: str) -> Path:
        return self._folder / f"{job.key}{suffix}"

    def _write(self, job: Job, outcome: dict[str, Any]) -> None:
        with atomic_path(self._file(job, ".json")) as temporary:
            temporary.write_text(json.dumps(outcome), encoding="utf-8")


@contextmanager
def open_parts(output: Path | None) -> Iterator[Parts]:
    """The folder beside an output, figures.parts beside figures.json, or a temporary one; gone when it is empty."""
    if output is None:
        with TemporaryDirectory() as folder:
            yield Parts(Path(folder))
        return
    beside = output.with_suffix(".parts")
    try:
        beside.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{beside}: cannot be made ({error.strerror}); it keeps results until all are there"
        ) from error
    try:
        yield Parts(beside)
    finally:
        with suppress(OSError):  # something is in it
            beside.rmdir()
