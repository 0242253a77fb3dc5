"""Motions without a clip: the head of the demo motion's first frame nods, or turns from side to side.

    python examples/made_motions.py cbtalk/weights

Writes nod_motion.safetensors and shake_motion.safetensors. The keypoints are those of one frame, taken for points on a
dome (a paraboloid over an ellipse around the face) that is turned in space and seen from the front; their Jacobians
are multiplied by the derivative of that map. What lies outside the ellipse rests. Mouth and eyes move with the head
only.
"""

import argparse
import math
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from cbtalk.model.checkpoint import BUNDLED, load
from cbtalk.model.keypoints import Keypoints
from cbtalk.render.motion_file import Motion, load_motion, save_motion

CENTRE, AXES = (0.06, 0.03), (0.68, 0.88)  # of the ellipse, in the image's coordinates, [-1, 1]
DEPTH = 0.6  # of the dome
RATE, SECONDS, PERIODS = 25, 3, 2
NOD, SHAKE = 0.22, 0.25  # radians at most


def turned(point: Tensor, pitch: Tensor, yaw: Tensor) -> Tensor:
    """The place (2,) of a point (2,) of the image after the dome is turned; pitch is positive downwards."""
    across, down = point[0] - CENTRE[0], point[1] - CENTRE[1]
    height = DEPTH * (1 - (across / AXES[0]).square() - (down / AXES[1]).square())
    moved = torch.stack(
        [
            across * yaw.cos() + height * yaw.sin() + CENTRE[0],
            down * pitch.cos() + height * pitch.sin() + CENTRE[1],
        ]
    )
    return torch.where(height > 0, moved, point)


def motion(start: Keypoints, pitch: Tensor, yaw: Tensor, note: str) -> Motion:
    """The motion of a frame's keypoints, value (1, K, 2) and jacobian (1, K, 2, 2), by angles (T,) in radians."""
    points = start.value[0]
    over_points = vmap(turned, in_dims=(0, None, None))
    value = vmap(over_points, in_dims=(None, 0, 0))(points, pitch, yaw)
    derivative = vmap(vmap(jacrev(turned), in_dims=(0, None, None)), in_dims=(None, 0, 0))(points, pitch, yaw)
    return Motion(
        Keypoints(value, derivative @ start.jacobian),
        torch.arange(len(pitch)),
        Fraction(1, RATE),
        Fraction(RATE),
        notes=(note,),
    )


def main() -> None:
    """Writes the motions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    fingerprint = load("mini").motion_fingerprint()
    start = load_motion(BUNDLED / "demo_motion.safetensors", fingerprint=fingerprint, num_keypoints=None)[slice(1)]
    phase = torch.arange(RATE * SECONDS) * (2 * math.pi * PERIODS / (RATE * SECONDS))  # ends where it begins
    still = torch.zeros_like(phase)
    note = "computed from one frame of the demo motion by examples/made_motions.py, not filmed"
    nod = motion(start, NOD * (1 - phase.cos()) / 2, still, note)
    shake = motion(start, still, SHAKE * phase.sin(), note)
    for name, made in {"nod": nod, "shake": shake}.items():
        save_motion(folder / f"{name}_motion.safetensors", made, fingerprint=fingerprint)


if __name__ == "__main__":
    main()
