"""The work behind the page's first tab: a portrait looked at, and animated."""

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from cbtalk.app.limits import Limits
from cbtalk.app.live import LiveModel, LiveTalker
from cbtalk.app.motions import BundledMotion, motions_for
from cbtalk.app.work_folder import without_folder
from cbtalk.errors import InputError
from cbtalk.render.crop_preview import Preview, preview_of
from cbtalk.render.parse_options import parse_options
from cbtalk.render.video import model_cache, render_video

Told = Callable[[int, int | None], None]


class Animated(NamedTuple):
    """A finished video, and what there is to tell of it, one line each."""

    video: Path
    lines: list[str]


@dataclass
class Studio:
    """A model at work for all visitors of a page: one render at a time, and one live image at a time beside it.

    weights: a name or file for `cbtalk.load`. folder: for results. The two have a model each, for what a model
    remembers is not made for two threads.
    """

    weights: str
    device: str
    dtype: torch.dtype
    limits: Limits
    folder: Path
    motions: dict[str, BundledMotion] = field(init=False)

    def __post_init__(self) -> None:
        """Load the model; WeightsError where it cannot be."""
        self._changed = threading.Condition()
        self._at_work, self.closing = 0, False
        self._cache = model_cache(self.weights, self.device, self.dtype)
        self._turn = threading.Lock()
        self._live = LiveModel(model_cache(self.weights, self.device, self.dtype), threading.Lock())
        self.motions = motions_for(self._cache.talker.motion_fingerprint())

    def look(self, portrait: str | None, words: Mapping[str, object]) -> Preview:
        """The preview of a portrait; `words` as of `animate`. Raises as `animate`."""
        path = _given(portrait, "a portrait")
        with self._work():
            return preview_of(path, self.limits.read_portrait(path), parse_options(words))

    def animate(
        self, portrait: str | None, driving: str | None, words: Mapping[str, object], told: Told | None = None
    ) -> Animated:
        """Animate a portrait by a bundled motion's name or by a clip; `words` are options of `cbtalk render` by name.

        told: as of `render_video`. Raises InputError, ConfigError and all that `render_video` raises.
        """
        source = _given(portrait, "a portrait")
        bundled = self.motions.get(driving or "")
        path = _given(driving, "a driving clip, or a motion") if bundled is None else bundled.path
        options = self.limits.bounded(path, parse_options(words))
        self.limits.read_portrait(source)
        name = path.stem if bundled is None else driving
        output = Path(tempfile.mkdtemp(dir=self.folder)) / f"{source.stem}__{name}.mp4"

        def go_on(frames: int, expected: int | None) -> None:
            self._check_open()
            if told is not None:
                told(frames, expected)

        with self._work(), self._turn:
            self._check_open()
            report = render_video(source, path, output, options, cache=self._cache, told=go_on)
        lines = [*(f"Warning: {warning}" for warning in report.warnings), *report.lines]
        return Animated(output, [without_folder(line, self.folder) for line in lines])

    def live(self, portrait: str | None, words: Mapping[str, object]) -> LiveTalker:
        """A portrait that is to be driven live; `words` as of `animate`. Raises as `animate`."""
        path = _given(portrait, "a portrait")
        with self._work():
            return LiveTalker(self._live, path, self.limits.read_portrait(path), parse_options(words))

    def close(self) -> None:
        """End the render that is under way, and return when nothing is at work: torch aborts a process that ends so."""
        with self._changed:
            self.closing = True
            self._changed.wait_for(lambda: self._at_work == 0)

    @contextmanager
    def _work(self) -> Iterator[None]:
        with self._changed:
            self._check_open()
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    def _check_open(self) -> None:
        if self.closing:
            raise InputError("the page is being closed")


def _given(name: str | None, what: str) -> Path:
    if not name:
        raise InputError(f"choose {what} first")
    return Path(name)
