"""What renders of one process share: the model, sources that are encoded already, and motions of driving videos."""

import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cbtalk.digest import combined, digest_of
from cbtalk.errors import InputError
from cbtalk.media.files import check_readable
from cbtalk.media.images import read_image
from cbtalk.model.talker import SourceState, Talker
from cbtalk.render.engine import Engine
from cbtalk.render.framing import source_picture
from cbtalk.render.motion_file import Motion, load_motion, save_motion
from cbtalk.render.options import DrivingOptions, RenderOptions
from cbtalk.render.report import Report

SOURCES = 8  # encoded sources that are kept: 60 MB each at 256 pixels


class Portrait(NamedTuple):
    """A source as the model takes it: picture (S, S, 3) uint8, what depends on it alone, and notes for reports."""

    picture: NDArray[np.uint8]
    state: SourceState
    notes: tuple[str, ...]


class Known:
    """Sources in memory and motions in files, so that what several renders need is worked out once.

    motions: a folder for motion files, named by the content of video, model and options, of which the longest unused
    are removed when they take more than `motion_bytes`. None: no motions are kept.
    """

    def __init__(self, make_talker: Callable[[], Talker], motions: Path | None = None, motion_bytes: int = 0) -> None:
        self._make_talker = make_talker
        self._motions, self._motion_bytes = motions, motion_bytes
        self._portraits: OrderedDict[object, Portrait] = OrderedDict()
        self._digests: dict[object, str] = {}

    @cached_property
    def talker(self) -> Talker:
        """The model, loaded when it is first needed: faults of the inputs show before."""
        return self._make_talker()

    @cached_property
    def _fingerprint(self) -> str:
        return self.talker.motion_fingerprint()

    def portrait(self, path: Path, options: RenderOptions, report: Report) -> Portrait:
        """The source of a file, encoded where it is not kept; `report` gets the notes of that."""
        check_readable(path, "picture")
        key = (_stamp(path), options.crop, options.face)
        found = self._portraits.pop(key, None)
        if found is None:
            made = Report(report.output)
            picture = source_picture(path, read_image(path), options, self.talker.image_size, made)
            found = Portrait(picture, Engine(self.talker, picture).state, tuple(made.notes))
        self._portraits[key] = found
        if len(self._portraits) > SOURCES:
            self._portraits.popitem(last=False)
        report.notes.extend(found.notes)
        return found

    def motion(
        self, path: Path, options: DrivingOptions, report: Report, extract: Callable[[Report], Motion]
    ) -> Motion | None:
        """The motion of a video, extracted where no file has it; None where motions are not kept.

        `report` gets what the extraction says, now or when it was done.
        """
        if self._motions is None:
            return None
        stamp = _stamp(path)
        if stamp not in self._digests:
            self._digests[stamp] = digest_of(path)
        name = combined(self._digests[stamp], self._fingerprint, repr(replace(options, batch_size=1)))
        file = self._motions / f"{name}.safetensors"
        with suppress(InputError):
            motion = load_motion(file, fingerprint=self._fingerprint, num_keypoints=self.talker.config.keypoints)
            os.utime(file)  # used now: the last to be removed
            report.notes.extend(motion.notes)
            return motion
        extraction = Report(report.output)
        motion = replace(extract(extraction), notes=tuple(extraction.notes + extraction.warnings))
        report.notes.extend(motion.notes)
        self._motions.mkdir(parents=True, exist_ok=True)
        save_motion(file, motion, fingerprint=self._fingerprint)
        self._remove_oldest()
        return motion

    def _remove_oldest(self) -> None:
        assert self._motions is not None
        with suppress(FileNotFoundError):  # another worker removes too
            files = sorted(
                ((path.stat(), path) for path in self._motions.glob("*.safetensors")), key=lambda pair: pair[0].st_mtime
            )
            left = sum(status.st_size for status, _ in files)
            for status, path in files:
                if left <= self._motion_bytes:
                    return
                path.unlink()
                left -= status.st_size


def _stamp(path: Path) -> tuple[str, int, int]:
    """A file as it is now."""
    status = path.stat()
    return os.path.realpath(path), status.st_size, status.st_mtime_ns
