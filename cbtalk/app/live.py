"""A portrait driven live: the newest frame of a camera is animated, those that come meanwhile are left out."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from cbtalk.app.newest import Newest
from cbtalk.faces import Square, choose, cut, frame
from cbtalk.media.images import Image8
from cbtalk.render.animation import Repetition
from cbtalk.render.cache import RenderCache
from cbtalk.render.engine import Engine
from cbtalk.render.framing import faces_in, image_of, source_place
from cbtalk.render.options import RenderOptions
from cbtalk.render.report import Report

_RECENT = 2.0  # seconds that the figures are of


@dataclass
class LiveModel:
    """The model of all live sessions, and the turn that one takes at it: they share what it remembers."""

    cache: RenderCache
    turn: threading.Lock


class LiveFrame(NamedTuple):
    """A finished image (S, S, 3) uint8; seconds of the clock at which its frame arrived and it was ready."""

    image: Image8
    arrived: float
    ready: float

    @property
    def latency(self) -> float:
        """Seconds from the frame's arrival to the image."""
        return self.ready - self.arrived


class Figures(NamedTuple):
    """The pace of the last seconds: images a second, median latency in seconds; frames dropped since the start."""

    rate: float
    latency: float
    dropped: int


class LiveTalker:
    """One portrait and one camera. Frames (H, W, 3) uint8 RGB are offered as they come; the newest is animated.

    One frame is animated at a time, in a thread that ends where no frame waits. A frame that arrives meanwhile takes
    the place of the one that waits, so that the delay never grows. Relative motion is measured from the first frame
    in which a face is found, and the square around that face is kept, until `begin_anew`. Without a face in view there
    is no image. A failure of the model is raised by the next `offer`.

    Raises InputError as a render would where the portrait shows no face and no crop is given.
    """

    def __init__(
        self,
        model: LiveModel,
        path: Path,
        portrait: Image8,
        options: RenderOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._turn, self._clock = model.turn, clock
        cache = model.cache
        self._size = cache.talker.image_size
        self.portrait = image_of(portrait, source_place(path, portrait, options, Report(path)), self._size)
        with self._turn:
            self._engine = Engine(
                cache.talker,
                self.portrait,
                relative=options.motion == "relative",
                adapt_scale=options.adapt_scale,
                strength=options.strength,
                in_float32=None if cache.in_float32 is None else Repetition(cache.in_float32),
                animator=cache.animator,
            )
        self._lock = threading.Lock()  # of all that follows
        self._waiting: Newest[tuple[Image8, float]] = Newest()
        self._done: Newest[LiveFrame] = Newest()
        self._recent: deque[LiveFrame] = deque()
        self._working = False
        self._failure: Exception | None = None
        self._square: Square | None = None
        self._start = 0  # how often it began anew

    def offer(self, frame: Image8) -> None:
        """Take a frame that has arrived now; returns at once."""
        self._waiting.put((np.array(frame), self._clock()))  # a copy: it may be the sender's, and read-only
        with self._lock:
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            if self._working:
                return
            self._working = True
        # No daemon: torch aborts where the interpreter ends in the middle of its work.
        threading.Thread(target=self._work, name="cbtalk-live").start()

    def newest(self) -> LiveFrame | None:
        """The newest finished image, once; None where there is none since the last call."""
        return self._done.take()

    def begin_anew(self) -> None:
        """Look for the face again, and measure relative motion from the next frame."""
        with self._lock:
            self._square = None
            self._start += 1

    @property
    def has_face(self) -> bool:
        """Whether a face was found in the camera's frames since it began."""
        return self._square is not None

    @property
    def figures(self) -> Figures | None:
        """The pace of the last seconds; None where no image was ready in them."""
        with self._lock:
            now = self._clock()
            while self._recent and self._recent[0].ready < now - _RECENT:
                self._recent.popleft()
            recent = list(self._recent)
        if not recent:
            return None
        rate = len(recent) / (now - recent[0].arrived)
        return Figures(rate, median(image.latency for image in recent), self._waiting.dropped)

    def _work(self) -> None:
        while True:
            with self._lock:
                taken = self._waiting.take()
                if taken is None:
                    self._working = False
                    return
                square, start = self._square, self._start
            try:
                image, square = self._animated(taken[0], square, start)
            except Exception as failure:  # told by the next offer
                with self._lock:
                    self._failure, self._working = failure, False
                return
            with self._lock:
                if start != self._start:  # begun anew meanwhile: this image is of the time before
                    continue
                self._square = square
                if image is not None:
                    done = LiveFrame(image, taken[1], self._clock())
                    self._recent.append(done)
                    self._done.put(done)

    def _animated(self, image: Image8, square: Square | None, start: int) -> tuple[Image8 | None, Square | None]:
        """The image of a frame and the square that it was seen in; None where no face is in view."""
        with self._turn:
            if square is None:
                faces = faces_in(image)
                if not faces:
                    return None, None
                square = frame(image, choose(faces, "largest"))
            seen = cut(image, square, self._size)[None]
            return self._engine.render(self._engine.detect(seen), [start]).images[0], square
