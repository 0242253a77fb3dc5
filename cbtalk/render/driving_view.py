"""What the model sees of a driving video: a square that is given, or one found by its faces in a look beforehand."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cbtalk.errors import InputError
from cbtalk.faces import Face, Find, SquarePath, choose, cut, fixed_square, following, people_of, resting
from cbtalk.media.video_reader import VideoInfo
from cbtalk.render.driving import View, at_most, crop_view, read_driving
from cbtalk.render.framing import faces_in, in_words
from cbtalk.render.options import DrivingOptions
from cbtalk.render.report import Report

# In each scene a face is looked for on frames so many seconds apart, at least; where more than so many frames were
# looked at, every second one is forgotten and they are twice as far apart from then on.
RESTING_SECONDS, RESTING_LOOKS = 0.2, 32
FOLLOWING_SECONDS, FOLLOWING_LOOKS = 0.1, 4096

_GROWN = 2.0  # multiple of the boxes by which a face is known again: it may move by its width between two looks
_IN_VIEW = 0.25  # of the time of the one longest in view, from which on a person counts


def driving_view(
    path: Path, info: VideoInfo, options: DrivingOptions, size: int, report: Report, *, progress: bool = False
) -> View:
    """The view of a driving video as (size, size, 3): of the crop that is given, or of a face, scene by scene.

    A face is looked for in one pass over the video, in memory that does not grow with its length but for the squares of
    its scenes. Its square rests in each scene, or follows it; a scene without a face has its neighbour's. `report`
    notes how many people there are and where nobody is.

    Raises InputError where there is no face in any scene and no crop is given.
    """
    if options.crop is not None:
        return crop_view(options.crop, size)
    scenes = _look(path, at_most(info.frames, options.max_frames), options, progress)
    most = max(scene.people for scene in scenes)
    if most == 0:
        raise InputError(
            f"{path}: no face is found in the video; give its square, x,y,size or centre, by --driving-crop "
            "(--crop of cbtalk motion)"
        )
    if isinstance(options.face, int) and options.face > most:
        raise InputError(f"{path}: face {options.face}: there are {most}, counted from left to right")
    if most > 1:
        people = f"{most} people" if len(scenes) == 1 else f"up to {most} people in a scene"
        report.notes.append(f"{path}: {people}; watched is {in_words(options.face)} (--driving-face chooses another)")
    empty = [scene for scene in scenes if scene.path is None]
    if empty:
        report.notes.append(
            f"{path}: no face is found in {len(empty)} of {len(scenes)} scenes, the first of them at "
            f"{empty[0].start:.2f} s; the square of the scene beside it is taken"
        )
    paths = _filled(scenes)
    return lambda image, scene, time: cut(image, paths[scene].at(time), size)


@dataclass
class _Scene:
    """A scene that was looked at: when it begins, how many people are in it, and the square of the one to watch."""

    start: float
    people: int = 0
    path: SquarePath | None = None


@dataclass
class _Looks:
    """The faces of a scene's frames, evenly spread: (seconds, faces)."""

    seconds: float  # apart, at least
    limit: int
    found: list[tuple[float, list[Face]]] = field(default_factory=list)

    def due(self, time: float) -> bool:
        """Whether a frame is to be looked at."""
        return not self.found or time > self.found[-1][0] + 0.99 * self.seconds

    def add(self, time: float, faces: list[Face]) -> None:
        """What was found; where that is too much, every second look is forgotten."""
        self.found.append((time, faces))
        if len(self.found) > self.limit:
            self.found, self.seconds = self.found[::2], 2 * self.seconds


def _look(path: Path, expected: int | None, options: DrivingOptions, progress: bool) -> list[_Scene]:
    """The scenes of a video of about so many frames."""
    spread = (FOLLOWING_SECONDS, FOLLOWING_LOOKS) if options.follow else (RESTING_SECONDS, RESTING_LOOKS)
    scenes: list[_Scene] = []
    looks = _Looks(*spread)
    frames = read_driving(path, _whole, options.max_frames, options.span)
    for frame in tqdm(frames, desc="faces", total=expected, unit="frame", disable=None if progress else True):
        time = float(frame.pts * frame.time_base)
        if frame.scene == len(scenes):
            if scenes:
                _settle(scenes[-1], looks, options)
            scenes.append(_Scene(time))
            looks = _Looks(*spread)
        if frame.held is None and looks.due(time):
            looks.add(time, faces_in(frame.image))
    _settle(scenes[-1], looks, options)
    return scenes


def _whole(image: NDArray[np.uint8], scene: int, time: float) -> NDArray[np.uint8]:
    return image


def _settle(scene: _Scene, looks: _Looks, options: DrivingOptions) -> None:
    """Choose the person of a scene, and set the square around the face."""
    people = people_of(([Find(time, face) for face in faces] for time, faces in looks.found), grown=_GROWN)
    people = [person for person in people if len(person) >= _IN_VIEW * len(people[0])]
    scene.people = len(people)
    if not people:
        return
    chosen = people[0]
    if options.face != "longest" and not (isinstance(options.face, int) and options.face > len(people)):
        face = choose([person[0].face for person in people], options.face)
        chosen = next(person for person in people if person[0].face is face)
    scene.path = following(chosen) if options.follow else resting(fixed_square(find.face for find in chosen))


def _filled(scenes: list[_Scene]) -> list[SquarePath]:
    """The squares of all scenes: where there is none, the last of the scene before, else the first of those after."""
    known = [scene.path for scene in scenes if scene.path is not None]
    beside = resting(known[0].at(-np.inf))
    paths = []
    for scene in scenes:
        paths.append(scene.path or beside)
        beside = resting(paths[-1].at(np.inf))
    return paths
