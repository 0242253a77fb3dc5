"""The cache of renders of one process: the model, encoded sources, and motions of driving videos in files."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Generic, TypeVar

from cbtalk.digest import combined, digest_of
from cbtalk.errors import InputError
from cbtalk.model.talker import SourceState, Talker
from cbtalk.render.animation import Animator
from cbtalk.render.framing import Place
from cbtalk.render.motion_file import Motion, load_motion, save_motion
from cbtalk.render.options import DrivingOptions, RenderOptions
from cbtalk.render.report import Report

T = TypeVar("T")
Places = tuple[Place, ...]  # of each scene of a source


class RenderCache:
    """The last source in memory and motions in files, so that what several renders need is worked out once.

    motions: a folder for motion files, named by the content of video, model and options, of which the longest unused
    are removed when they take more than `motion_bytes`. None: no motions are kept. make_float32: makes the same model
    in float32, where `make_talker` makes it in half precision.
    """

    def __init__(
        self,
        make_talker: Callable[[], Talker],
        motions: Path | None = None,
        motion_bytes: int = 0,
        make_float32: Callable[[], Talker] | None = None,
    ) -> None:
        self._make_talker = make_talker
        self.in_float32 = None if make_float32 is None else cache(make_float32)
        self._motions, self._motion_bytes = motions, motion_bytes
        self._places: _Latest[tuple[Places, list[str]]] = _Latest()
        self._state: _Latest[SourceState] = _Latest()  # 60 MB of the paper's model at 256 pixels
        self._digests: dict[object, str] = {}

    @cached_property
    def talker(self) -> Talker:
        """The model, loaded when it is first needed: faults of the inputs show before."""
        return self._make_talker()

    @cached_property
    def animator(self) -> Animator:
        """The model at work, with the CUDA graphs that it has captured."""
        return Animator(self.talker)

    @cached_property
    def _fingerprint(self) -> str:
        return self.talker.motion_fingerprint()

    @property
    def keeps_motions(self) -> bool:
        """Whether motions outlive a render."""
        return self._motions is not None

    def places(self, path: Path, options: RenderOptions, report: Report, find: Callable[[Report], Places]) -> Places:
        """The places of the face in a source, found where it is not the last; `report` gets the notes of that."""

        def found() -> tuple[Places, list[str]]:
            finding = Report(report.output)
            return find(finding), finding.notes

        places, notes = self._places.get(_source_key(path, options), found)
        report.notes.extend(notes)
        return places

    def state(self, path: Path, options: RenderOptions, encode: Callable[[], SourceState]) -> SourceState:
        """A source encoded, where it is not the last that was."""
        return self._state.get(_source_key(path, options), encode)

    def motion(
        self, path: Path, options: DrivingOptions, report: Report, extract: Callable[[Report], Motion]
    ) -> Motion:
        """The motion of a video, extracted where no file has it.

        `report` gets what the extraction says, now or when it was done.
        """
        if self._motions is None:
            return extract(report)
        stamp = _stamp(path)
        if stamp not in self._digests:
            self._digests[stamp] = digest_of(path)
        name = combined(self._digests[stamp], self._fingerprint, repr(replace(options, batch_size=1, smooth=0.0)))
        file = self._motions / f"{name}.safetensors"
        try:
            motion = load_motion(file, fingerprint=self._fingerprint, num_keypoints=self.talker.config.keypoints)
            os.utime(file)  # used now: the last to be removed
        except (InputError, FileNotFoundError):
            extraction = Report(report.output)
            motion = extract(extraction)
            motion = replace(motion, notes=tuple(extraction.notes + extraction.warnings))
            self._motions.mkdir(parents=True, exist_ok=True)
            save_motion(file, motion, fingerprint=self._fingerprint)
            self._remove_oldest()
        report.notes.extend(motion.notes)
        report.count_scenes(motion)
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


class _Latest(Generic[T]):
    """The value of the key that was asked for last."""

    def __init__(self) -> None:
        self._kept: dict[object, T] = {}

    def get(self, key: object, make: Callable[[], T]) -> T:
        """The value of a key, made where it is not the last, whose value is given up first."""
        if key not in self._kept:
            self._kept.clear()
            self._kept[key] = make()
        return self._kept[key]


def _source_key(path: Path, options: RenderOptions) -> object:
    return _stamp(path), options.crop, options.face


def _stamp(path: Path) -> tuple[str, int, int]:
    """A file as it is now."""
    status = path.stat()
    return os.path.realpath(path), status.st_size, status.st_mtime_ns
