"""The source of a render: an image, or a video of which each frame is animated at its own time."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbtalk.faces import Square
from cbtalk.media.images import read_image
from cbtalk.media.kinds import VIDEO_SUFFIXES
from cbtalk.render.cache import RenderCache
from cbtalk.render.framing import Place, image_of, source_place, square_of
from cbtalk.render.options import RenderOptions
from cbtalk.render.report import Report
from cbtalk.render.source_video import SourceFrame, SourceVideo, video_places

# Of these the source is the first image, as of every image file with more than one.
_ANIMATIONS = {".gif", ".apng"}


@dataclass(frozen=True)
class Source:
    """A source: its image (H, W, 3) uint8, the first of a video's, and the place in each scene that is animated."""

    path: Path
    image: NDArray[np.uint8]
    places: tuple[Place, ...]  # of each scene, or one for all
    video: SourceVideo | None  # None where it is an image

    def square(self, scene: int = 0) -> Square:
        """The square of a scene in the image."""
        return square_of(self.image, self._place(scene))

    def images(self, frames: Sequence[SourceFrame], size: int) -> NDArray[np.uint8]:
        """The model's view of whole images of the source: (B, size, size, 3)."""
        return np.stack([image_of(frame.image, self._place(frame.scene), size) for frame in frames])

    def first_image(self, size: int) -> NDArray[np.uint8]:
        """The model's view of `image`: (size, size, 3)."""
        return image_of(self.image, self._place(0), size)

    def _place(self, scene: int) -> Place:
        return self.places[min(scene, len(self.places) - 1)]


def is_video(path: Path) -> bool:
    """Whether the name of a source says that it is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES - _ANIMATIONS


@contextmanager
def open_source(path: Path, options: RenderOptions, cache: RenderCache, report: Report) -> Iterator[Source]:
    """The source in a file, a video where its name says so. `report` notes what was chosen and what is wrong with it.

    Raises InputError where it cannot be read, or has no face and no crop is given.
    """
    with ExitStack() as stack:
        if not is_video(path):
            image = read_image(path)
            places = cache.places(path, options, report, lambda own: (source_place(path, image, options, own),))
            yield Source(path, image, places, None)
            return
        video = stack.enter_context(SourceVideo(path))
        report.file_warnings.extend(video.warnings)
        places = cache.places(path, options, report, lambda own: video_places(path, options, own))
        yield Source(path, video.first, places, video)
        if video.undecoded:
            lost = f"{video.undecoded} of its frames could not be decoded; those before them are shown longer"
            report.file_warnings.append(f"{path}: {lost}")
