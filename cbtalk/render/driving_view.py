"""The square of a driving video that the model sees: given, or found by its faces in a look beforehand."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cbtalk.errors import InputError
from cbtalk.faces import SquarePath, cut, fixed_square, following, resting
from cbtalk.media.video_reader import VideoInfo
from cbtalk.render.driving import View, at_most, crop_view, read_driving
from cbtalk.render.framing import faces_in, in_words
from cbtalk.render.options import DrivingOptions
from cbtalk.render.people import Looks, chosen
from cbtalk.render.report import Report

# `Looks` of each scene.
RESTING_SECONDS, RESTING_LOOKS = 0.2, 32
FOLLOWING_SECONDS, FOLLOWING_LOOKS = 0.1, 4096


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


def _look(path: Path, expected: int | None, options: DrivingOptions, progress: bool) -> list[_Scene]:
    """The scenes of a video of about so many frames."""
    spread = (FOLLOWING_SECONDS, FOLLOWING_LOOKS) if options.follow else (RESTING_SECONDS, RESTING_LOOKS)
    scenes: list[_Scene] = []
    looks = Looks(*spread)
    frames = read_driving(path, _whole, options.max_frames, options.span)
    for frame in tqdm(frames, desc="faces", total=expected, unit="frame", disable=None if progress else True):
        time = float(frame.pts * frame.time_base)
        if frame.scene == len(scenes):
            if scenes:
                _settle(scenes[-1], looks, options)
            scenes.append(_Scene(time))
            looks = Looks(*spread)
        if frame.held is None and looks.due(time):
            looks.add(time, faces_in(frame.image))
    _settle(scenes[-1], looks, options)
    return scenes


def _whole(image: NDArray[np.uint8], scene: int, time: float) -> NDArray[np.uint8]:
    return image


def _settle(scene: _Scene, looks: Looks, options: DrivingOptions) -> None:
    """Choose the person of a scene, and set the square around the face."""
    people = looks.people()
    scene.people = len(people)
    if not people:
        return
    # Where a scene has fewer people than the number asked for, it is the one longest in view.
    absent = isinstance(options.face, int) and options.face > len(people)
    finds = chosen(people, "longest" if absent else options.face)
    scene.path = following(finds) if options.follow else resting(fixed_square(find.face for find in finds))


def _filled(scenes: list[_Scene]) -> list[SquarePath]:
    """The squares of all scenes: where there is none, the last of the scene before, else the first of those after."""
    known = [scene.path for scene in scenes if scene.path is not None]
    beside = resting(known[0].at(-np.inf))
    paths = []
    for scene in scenes:
        paths.append(scene.path or beside)
        beside = resting(paths[-1].at(np.inf))
    return paths
