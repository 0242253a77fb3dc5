"""Faces in images: where they are, and the square around one as a model animates it."""

from cbtalk.faces.detector import Face, FaceDetector, find_faces
from cbtalk.faces.framing import Square, cut, frame, roll

__all__ = ["Face", "FaceDetector", "Square", "cut", "find_faces", "frame", "roll"]
