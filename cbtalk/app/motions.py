"""The motions that the page offers where somebody has no clip at hand."""

from pathlib import Path
from typing import NamedTuple

from cbtalk.errors import InputError
from cbtalk.model.checkpoint import BUNDLED
from cbtalk.render.motion_file import load_motion


class BundledMotion(NamedTuple):
    """A motion file of the package, and what it is in a few words."""

    path: Path
    about: str


MOTIONS = {
    "talk": BundledMotion(BUNDLED / "demo_motion.safetensors", "keypoints read off a clip of a man talking"),
    "nod": BundledMotion(BUNDLED / "nod_motion.safetensors", "computed, not filmed"),
    "shake": BundledMotion(BUNDLED / "shake_motion.safetensors", "computed too"),
}


def motions_for(fingerprint: str) -> dict[str, BundledMotion]:
    """The bundled motions that fit a talker, by its `motion_fingerprint()`: all of them or none."""

    def fits(motion: BundledMotion) -> bool:
        try:
            load_motion(motion.path, fingerprint=fingerprint, num_keypoints=None)
        except InputError:  # of another model
            return False
        return True

    return {name: motion for name, motion in MOTIONS.items() if fits(motion)}
