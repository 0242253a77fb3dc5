"""The files that an evaluation writes: figures, contact sheet, comparison videos."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbtalk.atomic import left_over, write_text
from cbtalk.errors import ConfigError, InputError, OutputError
from cbtalk.evaluate.jobs import Job, file_names
from cbtalk.evaluate.parts import Parts
from cbtalk.evaluate.report import markdown
from cbtalk.evaluate.sheet import save_sheet


@dataclass(frozen=True)
class Outputs:
    """Files and a folder to write, None for what is not wanted; `beside` is another sheet, to be shown on this one."""

    figures: Path | None
    sheet: Path | None
    beside: Path | None
    videos: Path | None

    def check(self) -> None:
        """Makes the folder of the videos; raises before any work what would keep the files from being written."""
        for path, suffix in ((self.figures, ".json"), (self.sheet, ".png")):
            if path is not None and (path.suffix != suffix or not path.parent.is_dir()):
                raise OutputError(f"{path}: must be a {suffix} file in a folder that exists")
        if self.beside is not None and self.sheet is None:
            raise ConfigError("--beside goes with --sheet")
        if self.beside is not None and not self.beside.is_file():
            raise InputError(f"{self.beside}: no such file")
        if self.videos is not None:
            try:
                self.videos.mkdir(exist_ok=True)
            except OSError as error:
                raise OutputError(f"{self.videos}: must be a folder, or a new one in a folder that exists") from error

    def videos_of(self, jobs: Iterable[Job]) -> dict[str, Path]:
        """The video of each title that is shown; none where no videos are wanted."""
        if self.videos is None:
            return {}
        named = file_names([title for job in jobs for title in sorted(job.shown)])
        return {title: self.videos / f"{name}.mp4" for title, name in named.items()}

    def write(self, report: dict[str, Any], jobs: Sequence[Job], parts: Parts) -> None:
        """Writes figures and sheet of what is there, and removes the parts when all is; raises InputError for nothing.

        The figures come first: a sheet beside that is of other clips does not cost them.
        """
        if not report["clips"] and not report["cross"] and report["failed"]:
            name, reason = next(iter(report["failed"].items()))
            parts.remove()
            raise InputError(f"none of {len(report['failed'])} could be evaluated; {name}: {reason}")
        if self.figures is not None and (report["clips"] or report["cross"]):
            write_text(self.figures, json.dumps(report, indent=2) + "\n")
            write_text(self.figures.with_suffix(".md"), markdown(report))
        bands = [band for job in jobs for band in parts.bands(job)]
        if self.sheet is not None and bands:
            save_sheet(self.sheet, bands, self.beside)
        if not report["failed"] and not report["missing"]:
            parts.remove()

    def sweep(self, files: Iterable[Path]) -> None:
        """Removes what killed processes left of these videos."""
        names = {file.name for file in files}
        for path, name in left_over(self.videos) if self.videos is not None else ():
            if name in names:
                path.unlink(missing_ok=True)
