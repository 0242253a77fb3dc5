"""The command that packs clips into shards."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from cbtalk.options.machine import Quiet
from cbtalk.options.shards import Frames, Packing
from cbtalk.options.words import shown


def shards(
    clips: Positional[Annotated[Path, shown("CLIPS")]],
    output: Positional[Annotated[Path, shown("FOLDER")]],
    frame: Frames = Frames(),
    packing: Packing = Packing(),
    quiet: Quiet = False,
) -> int:
    """Pack a folder of clips into WebDataset's shards, tar files of images, from which train reads single frames.

    Started again, the command goes on with the clips that are in no shard yet. Exit code 1: some clips could not be
    read; the others are packed.

    Examples:

        cbtalk shards clips shards
        cbtalk shards clips shards --size 128 --quality png

    Args:
        clips: Folder of videos, or folders of frames, as for train.
        output: Folder for the shards, data.root of a training; it is made.
    """
    from cbtalk.dataset import FrameOptions, write_shards

    options = FrameOptions(**vars(frame))
    outcome = write_shards(
        clips, output, options, shard_mb=packing.shard_mb, processes=packing.workers, progress=not quiet
    )
    if not quiet:
        print(f"{output}: {outcome.written} clips written, {outcome.before} there before, {outcome.failed} left out")
    return 1 if outcome.failed else 0
