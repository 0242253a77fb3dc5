"""The people of a video: found on frames evenly spread, and the one among them who is asked for."""

from dataclasses import dataclass, field
from typing import Literal

from cbtalk.faces import Face, FaceChoice, Find, choose, people_of

_GROWN = 2.0  # multiple of the boxes by which a face is known again: it may move by its width between two looks
_IN_VIEW = 0.25  # of the time of the one longest in view, from which on a person counts


@dataclass
class Looks:
    """The faces of frames `seconds` apart at least; where they become more than `limit`, every second is forgotten."""

    seconds: float
    limit: int
    found: list[tuple[float, list[Face]]] = field(default_factory=list)  # seconds, faces

    def due(self, time: float) -> bool:
        """Whether a frame is to be looked at."""
        return not self.found or time > self.found[-1][0] + 0.99 * self.seconds

    def add(self, time: float, faces: list[Face]) -> None:
        """Take in the faces of a frame."""
        self.found.append((time, faces))
        if len(self.found) > self.limit:
            self.found, self.seconds = self.found[::2], 2 * self.seconds

    def people(self) -> list[list[Find]]:
        """The finds of each person who is in view for a good part of the time, the longest first."""
        people = people_of(([Find(time, face) for face in faces] for time, faces in self.found), grown=_GROWN)
        return [person for person in people if len(person) >= _IN_VIEW * len(people[0])]


def chosen(people: list[list[Find]], choice: FaceChoice | Literal["longest"]) -> list[Find]:
    """The person who is asked for, by the face found first; InputError for a number that none has."""
    if choice == "longest":
        return people[0]
    face = choose([person[0].face for person in people], choice)
    return next(person for person in people if person[0].face is face)
