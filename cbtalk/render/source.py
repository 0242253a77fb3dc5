"""The source of a render: a picture, or a video of which each frame is animated at its own time."""

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
from cbtalk.render.framing import Place, picture_of, source_place, square_of
from cbtalk.render.options import RenderOptions
from cbtalk.render.report import Report
from cbtalk.render.source_video import SourceVideo, video_place

# Of these the source is the first picture, as of every picture file with more than one.
_ANIMATIONS = {".gif", ".apng"}


@dataclass(frozen=True)
class Source:
    """A source: its image (H, W, 3) uint8, the first of a video's, and the place in it that is animated."""

    path: Path
    image: NDArray[np.uint8]
    place: Place
    video: SourceVideo | None  # None where it is a picture

    @property
    def square(self) -> Square:
        """Where the place lies."""
        return square_of(self.image, self.place)

    def pictures(self, images: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
        """What the model sees of whole images of the source: (B, size, size, 3)."""
        return np.stack([picture_of(image, self.place, size) for image in images])


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
            place = cache.place(path, options, report, lambda own: source_place(path, image, options, own))
            yield Source(path, image, place, None)
            return
        video = stack.enter_context(SourceVideo(path))
        report.file_warnings.extend(video.warnings)
        place = cache.place(path, options, report, lambda own: video_place(path, options, own))
        yield Source(path, video.first, place, video)
        if video.undecoded:
            lost = f"{video.undecoded} of its frames could not be decoded; those before them are shown longer"
            report.file_warnings.append(f"{path}: {lost}")
