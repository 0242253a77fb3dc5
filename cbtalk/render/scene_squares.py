"""The squares of a person's face in the scenes of a video, found in one look over its frames."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cbtalk.errors import InputError
from cbtalk.faces import FaceChoice, Find, SquarePath, fixed_square, no_such_face, resting
from cbtalk.render.driving import DrivingFrame
from cbtalk.render.framing import faces_in, in_words
from cbtalk.render.people import Looks, chosen
from cbtalk.render.report import Report


@dataclass(frozen=True)
class Search:
    """A search for the face of one person in a video.

    face: which one. seconds, limit: of `Looks`, in each scene. frame: the square of a scene by the person's faces.
    use: what is done with the face, in a word; option: names the face on the command line; instead: tells how a square
    is given where there is no face.
    """

    face: FaceChoice | Literal["longest"]
    seconds: float
    limit: int
    frame: Callable[[list[Find]], SquarePath]
    use: str
    option: str
    instead: str


def at_rest(finds: list[Find]) -> SquarePath:
    """The square of a scene for a person's faces that stays where it is."""
    return resting(fixed_square(find.face for find in finds))


def scene_squares(path: Path, frames: Iterable[DrivingFrame], search: Search, report: Report) -> list[SquarePath]:
    """The square of each scene of whole frames; a scene without a face has its neighbour's.

    Memory does not grow with the length of the video, but for the squares. `report` notes how many people there are and
    where nobody is. Raises InputError where there is no face in any scene, or none of the number asked for.
    """
    scenes = _look(frames, search)
    most = max(scene.people for scene in scenes)
    if most == 0:
        raise InputError(f"{path}: no face is found in the video; {search.instead}")
    if isinstance(search.face, int) and search.face > most:
        raise InputError(f"{path}: {no_such_face(search.face, most, 'video')}")
    if most > 1:
        people = f"{most} people" if len(scenes) == 1 else f"up to {most} people in a scene"
        report.notes.append(
            f"{path}: {people}; {search.use} is {in_words(search.face)} ({search.option} chooses another)"
        )
    empty = [scene for scene in scenes if scene.path is None]
    if empty:
        report.notes.append(
            f"{path}: no face is found in {len(empty)} of {len(scenes)} scenes, the first of them at "
            f"{empty[0].start:.2f} s; the square of the scene beside it is taken"
        )
    return _filled(scenes)


@dataclass
class _Scene:
    """A scene that was looked at: when it begins, how many people are in it, and the square of the one asked for."""

    start: float
    people: int = 0
    path: SquarePath | None = None


def _look(frames: Iterable[DrivingFrame], search: Search) -> list[_Scene]:
    scenes: list[_Scene] = []
    looks = Looks(search.seconds, search.limit)
    for frame in frames:
        time = float(frame.pts * frame.time_base)
        if frame.scene == len(scenes):
            if scenes:
                _settle(scenes[-1], looks, search)
            scenes.append(_Scene(time))
            looks = Looks(search.seconds, search.limit)
        if frame.held is None and looks.due(time):
            looks.add(time, faces_in(frame.image))
    _settle(scenes[-1], looks, search)
    return scenes


def _settle(scene: _Scene, looks: Looks, search: Search) -> None:
    """Choose the person of a scene, and set the square around the face."""
    people = looks.people()
    scene.people = len(people)
    if not people:
        return
    # A scene with fewer people than the number asked for: the one longest in view.
    absent = isinstance(search.face, int) and search.face > len(people)
    scene.path = search.frame(chosen(people, "longest" if absent else search.face))


def _filled(scenes: list[_Scene]) -> list[SquarePath]:
    """The squares of all scenes: where there is none, the last of the scene before, else the first of those after."""
    known = [scene.path for scene in scenes if scene.path is not None]
    beside = resting(known[0].at(-np.inf))
    paths = []
    for scene in scenes:
        paths.append(scene.path or beside)
        beside = resting(paths[-1].at(np.inf))
    return paths
