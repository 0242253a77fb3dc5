"""Batches as users run them: killed again and again (`kills`), their speed (`speed`), and their memory (`memory`).

python -m bench.batch kills --portraits FOLDER --clips FOLDER --jobs 300 --kills 50
python -m bench.batch speed --portraits FOLDER --clips FOLDER --jobs 100 --workers 1 2
python -m bench.batch memory --jobs 1000

Portraits are images named PERSON_SIZE, one for each person is taken; clips are .mp4 files, of which the beginnings
are taken. Exit code 1 where what is promised is not kept.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench.batch_kills import kills
from bench.batch_memory import memory
from bench.batch_speed import speed


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("what", choices=["kills", "speed", "memory"])
    add("--portraits", type=Path, help="folder of images")
    add("--clips", type=Path, help="folder of clips, and folders in it")
    add("--jobs", type=int, default=100)
    add("--frames", type=int, nargs=2, default=(12, 37), help="of a clip, at least and at most (kills)")
    add("--every", type=int, default=2, help="take every second (third ...) frame of a clip")
    add("--kills", type=int, default=50)
    add("--least", type=float, default=0.5, help="seconds before a kill")
    add("--spread", type=float, default=60.0, help="seconds over which kills are spread after that")
    add("--compared", type=int, default=60, help="videos compared with renders of their own (kills)")
    add("--workers", type=int, nargs="+", default=[len(os.sched_getaffinity(0))], help="(speed)")
    add("--singles", type=int, default=10, help="single commands that are timed (speed)")
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.what != "memory" and not (args.portraits and args.clips):
        parser.error("--portraits and --clips are needed")
    with tempfile.TemporaryDirectory() as scratch:
        good = {"kills": kills, "speed": speed, "memory": memory}[args.what](args, Path(scratch))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
