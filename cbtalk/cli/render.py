"""Commands for one portrait: render, motion, crop."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from cbtalk.cli.machine import Device, tell, use
from cbtalk.errors import ConfigError


def render(
    source: Annotated[Path, arg(aliases=["-s"])],
    driving: Annotated[Path, arg(aliases=["-d"])],
    output: Annotated[Path, arg(aliases=["-o"])],
    weights: str = "mini",
    motion: Literal["relative", "absolute"] = "relative",
    adapt_scale: bool = False,
    best_frame: bool = False,
    crop: str | None = None,
    face: str = "largest",
    driving_crop: str | None = None,
    driving_face: str = "longest",
    follow: bool = False,
    start: float = 0.0,
    duration: float | None = None,
    strength: float = 1.0,
    smooth: float = 0.0,
    loop: Literal["ping-pong", "cross-fade"] | None = None,
    fade: float = 0.5,
    audio: str | None = None,
    compare: bool = False,
    paste: bool = False,
    output_size: int | None = None,
    batch_size: int = 4,
    max_frames: int | None = None,
    threads: int | None = None,
    device: Device = "auto",
    quiet: bool = False,
) -> None:
    """Animate a portrait by the motion of a video.

    Args:
        source: The portrait: a picture; or a video, each frame of which is animated until one of the videos ends.
        driving: What moves it: a video, or a motion file made by `cbtalk motion`.
        output: The video to write (.mp4, .mov or .mkv).
        weights: A bundled model's name or a weights file.
        motion: Move the source as the driving face moves, or put it where the driving face is.
        adapt_scale: Multiply relative motion by the ratio of the two faces' sizes.
        best_frame: Measure relative motion from the driving frame of each scene most like the source, not its first.
        crop: Square of the source to animate, x,y,size in pixels, or centre; that of a face without it.
        face: Which face of the source: largest, its number from left to right, or x,y near it.
        driving_crop: Square of the driving video to watch, x,y,size in pixels, or centre; that of a face without it.
        driving_face: Which face to watch: longest (in view), largest, its number from left to right, or x,y near it.
        follow: Let the square move with the driving face, for people who walk through the picture.
        start: Seconds of the driving video, or motion file, to leave out; the sound is cut with it.
        duration: Seconds of it to render; to its end without it.
        strength: How strongly to move in relative motion: 0 (not at all) to 2 (twice as much as the driving face).
        smooth: Time constant in seconds of a smoothing of the motion that delays nothing; 0.025 takes out shaking.
        loop: Make one period that a player can repeat without a jump: forth and back, or its end blended into its
            beginning. It has no sound but that of --audio.
        fade: Seconds that the blending of a cross-faded loop takes, at most half of the motion.
        audio: A file whose sound is taken instead of the driving video's, from --start on and played once; or none.
        compare: Write source, driving and result side by side.
        paste: Write the whole source, at its own size (at most 4096 pixels), with the animated square in its place.
        output_size: Side of the output in pixels, even; with --paste that of the longer side.
        batch_size: Frames that the model takes at once.
        max_frames: Stop after this many frames.
        threads: CPU threads for the model.
        device: Where the model runs; auto takes the GPU if there is one.
        quiet: No progress and no final line; warnings and errors only.
    """
    from cbtalk.faces import parse_choice
    from cbtalk.media.crop import parse_crop
    from cbtalk.render import DrivingOptions, RenderOptions, render_video

    options = RenderOptions(
        motion=motion,
        adapt_scale=adapt_scale,
        best_frame=best_frame,
        crop=None if crop is None else parse_crop(crop),
        face=parse_choice(face),
        compare=compare,
        paste=paste,
        output_size=output_size,
        strength=strength,
        loop=loop,
        fade=fade,
        audio="driving" if audio is None else "none" if audio == "none" else Path(audio),
        driving=DrivingOptions(
            None if driving_crop is None else parse_crop(driving_crop),
            batch_size,
            max_frames,
            "longest" if driving_face == "longest" else parse_choice(driving_face),
            follow=follow,
            start=start,
            duration=duration,
            smooth=smooth,
        ),
    )
    device = use(device, threads)
    report = render_video(source, driving, output, options, weights=weights, device=device, progress=not quiet)
    tell(report, quiet)


def motion(
    driving: Annotated[Path | None, arg(aliases=["-d"])] = None,
    output: Annotated[Path | None, arg(aliases=["-o"])] = None,
    info: Path | None = None,
    weights: str = "mini",
    crop: str | None = None,
    face: str = "longest",
    follow: bool = False,
    start: float = 0.0,
    duration: float | None = None,
    smooth: float = 0.0,
    batch_size: int = 4,
    max_frames: int | None = None,
    threads: int | None = None,
    device: Device = "auto",
    quiet: bool = False,
) -> None:
    """Write the motion of a video to a motion file, which `cbtalk render` takes in place of the video.

    Args:
        driving: The video.
        output: The motion file to write (.safetensors).
        info: A motion file to tell about instead: its length, its rate, the weights that it fits.
        weights: A bundled model's name or a weights file; render with the same.
        crop: Square of the video to watch, x,y,size in pixels, or centre; that of a face without it.
        face: Which face to watch: longest (in view), largest, its number from left to right, or x,y near it.
        follow: Let the square move with the face, for people who walk through the picture.
        start: Seconds of the video to leave out.
        duration: Seconds of it to take; to its end without it.
        smooth: Time constant in seconds of a smoothing of the motion that delays nothing; 0.025 takes out shaking.
        batch_size: Frames that the model takes at once.
        max_frames: Stop after this many frames.
        threads: CPU threads for the model.
        device: Where the model runs; auto takes the GPU if there is one.
        quiet: No progress and no final line; warnings and errors only.
    """
    from cbtalk.faces import parse_choice
    from cbtalk.media.crop import parse_crop
    from cbtalk.render import DrivingOptions, motion_info, write_motion

    if info is not None:
        print(*motion_info(info), sep="\n")
        return
    if driving is None or output is None:
        raise ConfigError("motion needs --driving and --output, or --info and a motion file")
    options = DrivingOptions(
        None if crop is None else parse_crop(crop),
        batch_size,
        max_frames,
        "longest" if face == "longest" else parse_choice(face),
        follow=follow,
        start=start,
        duration=duration,
        smooth=smooth,
    )
    report = write_motion(driving, output, options, weights=weights, device=use(device, threads), progress=not quiet)
    tell(report, quiet)


def crop(
    source: Positional[Path],
    output: Annotated[Path, arg(aliases=["-o"])],
    face: str = "largest",
) -> None:
    """Draw what `cbtalk render` finds in a portrait: faces, their numbers and the square that it animates.

    Args:
        source: The portrait: a picture.
        output: The picture to write (.png).
        face: Which face to animate: largest, its number from left to right, or x,y near it.
    """
    from cbtalk.faces import parse_choice
    from cbtalk.render.crop_preview import crop_preview

    print(crop_preview(source, output, parse_choice(face)))
