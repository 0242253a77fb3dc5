"""Faces in images: where they are, and the square around one as a model animates it."""

from cbtalk.faces.choice import choose, from_left_to_right, no_such_face
from cbtalk.faces.detector import Face, FaceDetector, find_faces
from cbtalk.faces.framing import Square, cut, frame, roll
from cbtalk.faces.path import SquarePath, following, resting
from cbtalk.faces.track import Find, fixed_square, people_of, tracks_of
from cbtalk.options.places import FaceChoice, parse_choice

__all__ = [
    "Face",
    "FaceChoice",
    "FaceDetector",
    "Find",
    "Square",
    "SquarePath",
    "choose",
    "cut",
    "find_faces",
    "fixed_square",
    "following",
    "frame",
    "from_left_to_right",
    "no_such_face",
    "parse_choice",
    "people_of",
    "resting",
    "roll",
    "tracks_of",
]
