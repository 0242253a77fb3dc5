"""The command that packs clips into shards."""

from pathlib import Path

from tyro.conf import Positional

from cbtalk.errors import ConfigError


def shards(
    clips: Positional[Path],
    output: Positional[Path],
    size: int = 256,
    quality: str = "95",
    shard_mb: int = 500,
    workers: int | None = None,
    quiet: bool = False,
) -> int:
    """Pack a folder of clips into WebDataset's shards, tar files of pictures, from which train reads single frames.

    Started again, the command goes on with the clips that are in no shard yet. Exit code 1: some clips could not be
    read; the others are packed.

    Args:
        clips: Folder of videos, or folders of frames, as for train.
        output: Folder for the shards, data.root of a training; it is made.
        size: Width and height of the frames in pixels, the image_size of the model.
        quality: Of the JPEG files, 1 to 100; or png, without loss.
        shard_mb: MiB after which a new shard begins.
        workers: Processes at work; by default one for each core.
        quiet: No progress and no summary; warnings and errors only.
    """
    from cbtalk.dataset import FrameOptions, write_shards

    if quality != "png" and not quality.isdecimal():
        raise ConfigError(f"--quality {quality}: must be from 1 to 100, or png")
    options = FrameOptions(size, None if quality == "png" else int(quality))
    outcome = write_shards(clips, output, options, shard_mb=shard_mb, processes=workers, progress=not quiet)
    if not quiet:
        print(f"{output}: {outcome.written} clips written, {outcome.before} there before, {outcome.failed} left out")
    return 1 if outcome.failed else 0
