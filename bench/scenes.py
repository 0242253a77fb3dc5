"""Changes from frame to frame, beside those between clips: `python -m bench.scenes FOLDER [--clips N] [--frames N]`.

Prints the figures from which the limits of `cbtalk.media.scenes` were set, and the cuts found within clips.
"""

import argparse
import random
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from cbtalk.media.clips import find_clips
from cbtalk.media.scenes import SceneCuts, change, mean_colours
from cbtalk.media.video_reader import Frame, open_video

PAIRS = 500


def main() -> None:
    """Prints a line for the frames within clips, and one for pairs of clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=68)
    parser.add_argument("--frames", type=int, default=200, help="of each clip, at most")
    arguments = parser.parse_args()
    largest, ends, cuts = [], [], {}
    clips = find_clips(arguments.folder)[: arguments.clips]
    for clip in clips:
        with open_video(clip.path) as reader:
            images = [frame.image for frame in islice(reader, arguments.frames) if isinstance(frame, Frame)]
        is_cut = SceneCuts()
        found = [number for number, image in enumerate(images) if is_cut(image)]
        if found:
            cuts[clip.name] = found
        colours = [mean_colours(image) for image in images]
        largest.append(max(change(before, after) for before, after in pairwise(colours)))
        ends.append((clip.identity, colours[0], colours[-1]))
    draw = random.Random(0)
    pairs = (draw.sample(ends, 2) for _ in range(10 * PAIRS))
    between = list(islice((change(one[2], other[1]) for one, other in pairs if one[0] != other[0]), PAIRS))
    for name, values in (("within clips, the largest of each", largest), ("between clips of two people", between)):
        low, half, high, most = np.quantile(values, [0.01, 0.5, 0.98, 1.0])
        print(f"{name}, {len(values)}: 1% {low:.3f}, median {half:.3f}, 98% {high:.3f}, most {most:.3f}")
    print(f"between clips, below 0.06: {sum(value < 0.06 for value in between)} of {len(between)}")
    print(f"cuts found within clips: {cuts}")


if __name__ == "__main__":
    main()
