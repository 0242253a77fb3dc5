"""Commands for one portrait: render, motion, crop."""

from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from cbtalk.cli.machine import tell, use
from cbtalk.cli.options import Faces, Machine, Movement, Part, Result
from cbtalk.errors import ConfigError


def render(
    source: Annotated[Path, arg(aliases=["-s"])],
    driving: Annotated[Path, arg(aliases=["-d"])],
    output: Annotated[Path, arg(aliases=["-o"])],
    faces: OmitArgPrefixes[Faces] = Faces(),
    movement: OmitArgPrefixes[Movement] = Movement(),
    part: OmitArgPrefixes[Part] = Part(),
    result: OmitArgPrefixes[Result] = Result(),
    machine: OmitArgPrefixes[Machine] = Machine(),
) -> None:
    """Animate a portrait by the motion of a video.

    Args:
        source: The portrait: a picture; or a video, each frame of which is animated until one of the videos ends.
        driving: The video that moves it, or a motion file made by `cbtalk motion`.
        output: The video to write (.mp4, .mov or .mkv).
        faces: The faces of the source and of the driving video.
        movement: The way the source moves.
        part: The part of the driving video, or motion file, that is used.
        result: The pictures and the sound of the output.
        machine: The model and the machine.
    """
    from cbtalk.precision import dtype_of
    from cbtalk.render import render_video
    from cbtalk.render.parse_options import parse_options

    options = parse_options({**vars(faces), **vars(movement), **vars(part), **vars(result)})
    device = use(machine.device, machine.threads)
    report = render_video(
        source,
        driving,
        output,
        options,
        weights=machine.weights,
        device=device,
        dtype=dtype_of(machine.precision, device),
        progress=not machine.quiet,
    )
    tell(report, machine.quiet)


def motion(
    driving: Annotated[Path | None, arg(aliases=["-d"])] = None,
    output: Annotated[Path | None, arg(aliases=["-o"])] = None,
    info: Path | None = None,
    crop: str | None = None,
    face: str = "longest",
    part: OmitArgPrefixes[Part] = Part(),
    machine: OmitArgPrefixes[Machine] = Machine(),
) -> None:
    """Write the motion of a video to a motion file, which `cbtalk render` takes in place of the video.

    Keypoints are computed in float32 whatever the precision: a motion file is the same in each.

    Args:
        driving: The video.
        output: The motion file to write (.safetensors).
        info: A motion file to tell about instead: its length, its rate, the weights that it fits.
        crop: Square of the video to watch, x,y,size in pixels, or centre; that of a face without it.
        face: Which face to watch: longest (in view), largest, its number from left to right, or x,y near it.
        part: The part of the video that is used.
        machine: The model, with which to render too, and the machine.
    """
    from cbtalk.render import motion_info, write_motion
    from cbtalk.render.parse_options import parse_options

    if info is not None:
        print(*motion_info(info), sep="\n")
        return
    if driving is None or output is None:
        raise ConfigError("motion needs --driving and --output, or --info and a motion file")
    options = parse_options({"driving_crop": crop, "driving_face": face, **vars(part)}).driving
    device = use(machine.device, machine.threads)
    report = write_motion(driving, output, options, weights=machine.weights, device=device, progress=not machine.quiet)
    tell(report, machine.quiet)


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
