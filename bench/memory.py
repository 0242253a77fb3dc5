"""Whether memory grows with the length of a video: peaks of a render of 6 s and of one of 60 s.

python -m bench.memory [--weights NAME_OR_FILE] [--rate FRAMES_A_SECOND] [--paste] [--source-video]
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from bench.media import write_clip

SECONDS = (6, 60)
SIDE = 256

CENTRED = ("--crop", "centre", "--driving-crop", "centre")  # the images have no faces


def peak(arguments: list[str]) -> int:
    """Bytes of memory that the command `cbtalk` had resident at its peak; raises CalledProcessError where it fails."""
    command = [sys.executable, "-m", "cbtalk", *arguments]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peaks(weights: str, rate: int, *, paste: bool = False, source_video: bool = False) -> list[int]:
    """The peak of a render for each of SECONDS; of a video of the same length where one is the source."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(np.full((SIDE, SIDE, 3), 128, np.uint8)).save(folder / "portrait.png")
        found = []
        for seconds in SECONDS:
            write_clip(folder / "driving.mp4", side=SIDE, frames=seconds * rate, rate=rate)
            files = ("-s", "driving.mp4" if source_video else "portrait.png", "-d", "driving.mp4", "-o", "out.mp4")
            given = [part if part.startswith("-") else str(folder / part) for part in files]
            found.append(peak(["render", *given, *CENTRED, *(["--paste"] if paste else []), "--weights", weights]))
        return found


def main(weights: str = "mini", rate: int = 25, paste: bool = False, source_video: bool = False) -> None:
    """Print the peaks of renders of a short and of a long driving video."""
    short, long = peaks(weights, rate, paste=paste, source_video=source_video)
    for seconds, bytes_ in zip(SECONDS, (short, long), strict=True):
        print(f"{seconds:3} s at {rate} frames a second: {bytes_ / 2**20:.1f} MiB")
    print(f"ratio {long / short:.3f}")


if __name__ == "__main__":
    tyro.cli(main)
